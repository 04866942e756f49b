from __future__ import annotations

import gzip
import hashlib
import pickle
import sys
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from conftest import make_data, make_spec
from dim_data.images.real import LabelledImages, load_real
from dim_data.images.rows import ImageRows
from dim_data.images.specs import KNOWN_SPECS

GREY = make_data(1, 28)
RGB = make_data(3, 32)


def last(data: LabelledImages) -> np.ndarray:
    """Images as files hold them: uint8 (N, H, W) or (N, H, W, 3)."""
    return data.images.permute(0, 2, 3, 1).squeeze(3).numpy()


def assert_same(read: LabelledImages, data: LabelledImages) -> None:
    assert torch.equal(read.images, data.images)
    assert torch.equal(read.labels, data.labels)
    assert (read.images.dtype, read.labels.dtype) == (torch.uint8, torch.int64)
    assert read.images.is_contiguous()
    assert (read.spec.channels, read.spec.size) == (data.spec.channels, data.spec.size)
    assert len(read) == len(data)


class Items:
    """A map-style dataset."""

    def __init__(self, items: Sequence[Any], classes: Any = None) -> None:
        self.items = items
        if classes is not None:
            self.classes = classes

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


# Pairs and datasets ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "images"),
    [
        (RGB, RGB.images),
        (RGB, RGB.images.numpy()),
        (RGB, last(RGB)),
        (RGB, RGB.images.float() / 255),
        (RGB, RGB.images.double() / 255),
        (RGB, last(RGB).astype(np.float32) / 255),
        (GREY, GREY.images),
        (GREY, GREY.images[:, 0]),
        (GREY, last(GREY)),
        (GREY, last(GREY)[..., None]),
        (GREY, GREY.images.half() / 255),
    ],
)
@pytest.mark.parametrize("kind", [tuple, list])
def test_pairs_in_every_layout(data: LabelledImages, images: Any, kind: type) -> None:
    read = load_real(kind([images, data.labels]))
    assert_same(read, data)
    assert read.spec.name == "custom"
    assert read.spec.classes == ("0", "1", "2")


@pytest.mark.parametrize(
    "labels",
    [GREY.labels, GREY.labels[:, None], GREY.labels.tolist(), GREY.labels.to(torch.uint8), GREY.labels.numpy()],
)
def test_labels_in_every_form(labels: Any) -> None:
    assert_same(load_real((GREY.images, labels)), GREY)


def test_statistics_are_those_of_the_images() -> None:
    spec = load_real((RGB.images, RGB.labels)).spec
    pixels = RGB.images.double() / 255
    assert spec.mean == pytest.approx(pixels.mean((0, 2, 3)).tolist(), abs=1e-4)
    assert spec.std == pytest.approx(pixels.std((0, 2, 3)).tolist(), abs=1e-4)
    normalized = spec.normalize(pixels.float())
    assert normalized.mean((0, 2, 3)).abs().max() < 1e-2
    assert (normalized.std((0, 2, 3)) - 1).abs().max() < 1e-2
    flat = load_real((torch.full((4, 1, 28, 28), 0.5), torch.arange(4) % 2)).spec
    assert flat.std == (1e-3,)


def test_a_given_spec_is_kept() -> None:
    spec = replace(make_spec(1, 28, 5), name="mine")
    assert load_real((GREY.images, GREY.labels), spec).spec is spec
    assert load_real(GREY) is GREY
    assert load_real(GREY, GREY.spec) is GREY
    again = load_real(GREY, spec)
    assert again.spec is spec
    assert_same(again, GREY)


def array_of(image: torch.Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).squeeze(2).numpy()


@pytest.mark.parametrize("data", [GREY, RGB])
@pytest.mark.parametrize(
    "form",
    [
        lambda x: Image.fromarray(array_of(x)),
        array_of,
        lambda x: x,
        lambda x: x.float() / 255,
        lambda x: x.permute(1, 2, 0).numpy(),
    ],
)
def test_datasets_of_every_item(data: LabelledImages, form: Callable[..., Any]) -> None:
    items = [(form(x), y) for x, y in zip(data.images, data.labels.tolist(), strict=True)]
    assert_same(load_real(Items(items)), data)


@pytest.mark.parametrize("form", [np.int64, torch.tensor, lambda y: np.array([y])])
def test_datasets_of_every_label(form: Callable[..., Any]) -> None:
    items = [(x, form(y)) for x, y in zip(GREY.images, GREY.labels.tolist(), strict=True)]
    assert_same(load_real(items), GREY)


def test_a_dataset_names_its_classes() -> None:
    items = list(zip(GREY.images, GREY.labels.tolist(), strict=True))
    spec = load_real(Items(items, ["a", "b", "c", "absent"])).spec
    assert (spec.name, spec.classes) == ("items", ("a", "b", "c", "absent"))
    assert load_real(Items(items, 3)).spec.classes == ("0", "1", "2")
    assert load_real(TensorDataset(GREY.images, GREY.labels)).spec.name == "tensordataset"


def test_modes_other_than_grey_become_rgb() -> None:
    pictures = [Image.fromarray(array_of(x)) for x in RGB.images]
    for mode in ("RGBA", "CMYK"):
        items = [(p.convert(mode), y) for p, y in zip(pictures, RGB.labels.tolist(), strict=True)]
        assert_same(load_real(items), RGB)


def test_torchvisions_fake_data() -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    data = load_real(datasets.FakeData(30, (3, 32, 32), 3))
    assert data.images.shape == (30, 3, 32, 32)
    assert (data.spec.name, data.spec.num_classes) == ("fakedata", 3)


# Files -------------------------------------------------------------------------------------------------


def save_npz(path: Path, data: LabelledImages, splits: Sequence[str] = ("train",), column: bool = False) -> Path:
    arrays = {}
    for split in splits:
        arrays[f"{split}_images"] = last(data)
        arrays[f"{split}_labels"] = data.labels.numpy().astype(np.uint8)[:, None] if column else data.labels.numpy()
    np.savez_compressed(path, **arrays)
    return path


@pytest.mark.parametrize("data", [GREY, RGB])
@pytest.mark.parametrize("column", [False, True])
def test_npz_with_medmnist_keys(data: LabelledImages, column: bool, tmp_path: Path) -> None:
    other = make_data(data.spec.channels, data.spec.size, seed=1)
    path = save_npz(tmp_path / "organs.npz", data, ("train", "val"), column)
    with np.load(path) as arrays:
        merged = dict(arrays) | {"test_images": last(other), "test_labels": other.labels.numpy()}
    np.savez(path, **merged)
    for source in (path, str(path)):
        assert_same(load_real(source), data)
    assert_same(load_real(path, split="val"), data)
    assert_same(load_real(path, split="test"), other)
    assert load_real(path).spec.name == "organs"


def save_folder(path: Path, data: LabelledImages, names: Sequence[str], suffix: str = ".png") -> Path:
    for index, (image, label) in enumerate(zip(data.images, data.labels.tolist(), strict=True)):
        (path / names[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(array_of(image)).save(path / names[label] / f"{index:04}{suffix}")
    return path


@pytest.mark.parametrize("data", [GREY, RGB])
@pytest.mark.parametrize("suffix", [".png", ".BMP"])
def test_image_folders(data: LabelledImages, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_folder(tmp_path / "pets", data, ("ant", "bee", "cow"), suffix)
    (path / ".cache").mkdir()
    (path / "readme.txt").touch()
    (path / "ant" / "notes.txt").touch()
    order = data.labels.argsort(stable=True)
    with pytest.warns(UserWarning, match=r"skipped 2 files \(no images, or hidden\): ant/notes.txt, readme.txt"):
        read = load_real(path)
    assert_same(read, data.subset(order))
    assert (read.spec.name, read.spec.classes) == ("pets", ("ant", "bee", "cow"))
    (path / "readme.txt").unlink()
    (path / "ant" / "notes.txt").unlink()
    monkeypatch.chdir(path)
    assert load_real(".").spec == read.spec


def test_class_names_that_the_spec_knows_decide_the_labels(tmp_path: Path) -> None:
    path = save_folder(tmp_path / "pets", GREY, ("ant", "bee", "cow"))
    grey = GREY.subset(GREY.labels.argsort(stable=True))
    spec = replace(make_spec(1, 28, 4), classes=("cow", "bee", "dog", "ant"))
    read = load_real(path, spec)
    assert torch.equal(read.images, grey.images)
    assert torch.equal(read.labels, torch.tensor([3, 1, 0])[grey.labels])
    items = list(zip(GREY.images, GREY.labels.tolist(), strict=True))
    assert torch.equal(
        load_real(Items(items, ["bee", "cow", "ant"]), spec).labels, torch.tensor([1, 0, 3])[GREY.labels]
    )
    with pytest.raises(ValueError, match=r"tiny has no class 'emu'; its 4 classes are 'cow', 'bee', 'dog', 'ant'"):
        load_real(Items(items, ["bee", "cow", "emu"]), spec)


def test_a_folder_may_have_a_long_name(tmp_path: Path) -> None:
    path = save_folder(tmp_path / ("x" * 220), GREY, ("a", "b", "c"))
    assert load_real(path).spec.name == "x" * 200


# Known names -------------------------------------------------------------------------------------------


def known(name: str, count: int = 20) -> LabelledImages:
    spec = KNOWN_SPECS[name]
    return LabelledImages(*vars(make_data(spec.channels, spec.size, 10, count // 10)).values()).to(torch.device("cpu"))


@pytest.mark.parametrize("name", sorted(KNOWN_SPECS))
def test_names_read_a_packed_file_first(name: str, tmp_path: Path) -> None:
    data = known(name)
    save_npz(tmp_path / f"{name}.npz", data, ("train", "test"))
    for split in ("train", "test"):
        read = load_real(name, split=split, root=tmp_path)
        assert_same(read, data)
        assert read.spec == KNOWN_SPECS[name]
    assert load_real(tmp_path / f"{name}.npz").spec == KNOWN_SPECS[name]


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_idx_files_as_distributed(name: str, folder: str, tmp_path: Path) -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    splits = {"train": known(name, 40), "t10k": known(name)}
    raw = tmp_path / folder / "raw"
    raw.mkdir(parents=True)
    for split, data in splits.items():
        pixels, labels = data.images.numpy().tobytes(), data.labels.to(torch.uint8).numpy().tobytes()
        header = [len(data).to_bytes(4, "big"), (28).to_bytes(4, "big"), (28).to_bytes(4, "big")]
        (raw / f"{split}-images-idx3-ubyte").write_bytes(bytes([0, 0, 8, 3]) + b"".join(header) + pixels)
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1]) + header[0] + labels)
    for split, data in (("train", splits["train"]), ("test", splits["t10k"])):
        read = load_real(name, split=split, root=tmp_path)
        assert_same(read, data)
        assert read.spec == KNOWN_SPECS[name]
    kind = {"mnist": datasets.MNIST, "fashion_mnist": datasets.FashionMNIST}[name]
    read = load_real(kind(str(tmp_path), train=False))
    assert_same(read, splits["t10k"])
    assert read.spec == KNOWN_SPECS[name]


def digest(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_cifar10s_pickled_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = pytest.importorskip("torchvision.datasets").CIFAR10
    data, base = known("cifar10"), tmp_path / kind.base_folder
    base.mkdir()

    def write(name: str, content: dict[str, Any]) -> list[str]:
        (base / name).write_bytes(pickle.dumps(content))
        return [name, digest(base / name)]

    batch = {"data": data.images.flatten(1).numpy(), "labels": data.labels.tolist()}
    meta = {"label_names": list(KNOWN_SPECS["cifar10"].classes)}
    monkeypatch.setattr(kind, "train_list", [write(f"data_batch_{i}", batch) for i in (1, 2)])
    monkeypatch.setattr(kind, "test_list", [write("test_batch", batch)])
    key = {"filename": "batches.meta", "key": "label_names", "md5": write("batches.meta", meta)[1]}
    monkeypatch.setattr(kind, "meta", key)
    assert_same(load_real("cifar10", split="test", root=tmp_path), data)
    assert len(load_real("cifar10", root=str(tmp_path))) == 40
    read = load_real(kind(str(tmp_path), train=False))
    assert_same(read, data)
    assert read.spec == KNOWN_SPECS["cifar10"]


def test_svhns_matlab_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    io = pytest.importorskip("scipy.io")
    kind = pytest.importorskip("torchvision.datasets").SVHN
    data = known("svhn")
    labels = np.where(data.labels == 0, 10, data.labels).astype(np.uint8)[:, None]
    for split in ("train", "test"):
        path = tmp_path / f"{split}_32x32.mat"
        io.savemat(path, {"X": data.images.permute(2, 3, 1, 0).numpy(), "y": labels})
        monkeypatch.setitem(kind.split_list, split, ["", path.name, digest(path)])
        read = load_real("svhn", split=split, root=tmp_path)
        assert_same(read, data)
        assert read.spec == KNOWN_SPECS["svhn"]
    assert_same(load_real(kind(str(tmp_path), "test")), data)
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(ImportError, match=r"svhn in torchvision's files needs scipy: pip install dim-data\[svhn\]"):
        load_real("svhn", root=tmp_path)


def test_a_known_name_wants_its_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="say where the files of 'cifar10' are: root="):
        load_real("cifar10")
    for name in sorted(KNOWN_SPECS):
        with pytest.raises(FileNotFoundError, match=f"no {name} under .* nor torchvision's files"):
            load_real(name, root=tmp_path)
        with pytest.raises(ValueError, match=f"'{name}' has no split 'val', only 'train' and 'test'"):
            load_real(name, split="val", root=tmp_path)
        with pytest.raises(ValueError, match="split must be one of train, val, test, got 'tset'"):
            load_real(name, split="tset", root=tmp_path)


@pytest.mark.parametrize("name", ["cifar10", "fashion_mnist"])
def test_a_known_sets_classes_are_matched_by_name(name: str, tmp_path: Path) -> None:
    data, spec = known(name), KNOWN_SPECS[name]
    save_npz(tmp_path / f"{name}.npz", data, ("test",))
    others = replace(spec, name="pets", classes=("other", *sorted(spec.classes, reverse=True)))
    places = torch.tensor([others.classes.index(called) for called in spec.classes])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for source, root in ((name, tmp_path), (tmp_path / f"{name}.npz", None)):
            assert torch.equal(load_real(source, others, split="test", root=root).labels, places[data.labels])


def test_a_known_set_under_other_names_is_refused(tmp_path: Path) -> None:
    save_npz(tmp_path / "cifar10.npz", known("cifar10"), ("test",))
    spec = KNOWN_SPECS["cifar10"]
    for classes, lacking in (
        (("plane", "car", *spec.classes[2:]), "'airplane', 'automobile'; its 10 classes are 'plane', 'car', 'bird'"),
        (tuple("abcdefghij"), "'airplane', 'automobile', 'bird', 'cat', 'deer', ...; its 10 classes are 'a', 'b'"),
    ):
        with pytest.raises(ValueError, match=f"mine has no class {lacking}"):
            load_real("cifar10", replace(spec, name="mine", classes=classes), split="test", root=tmp_path)


def test_a_known_sets_classes_count_in_order_where_a_spec_has_but_numbers(tmp_path: Path) -> None:
    data = known("cifar10")
    save_npz(tmp_path / "cifar10.npz", data, ("test",))
    numbered = replace(data.spec, name="mine", classes=tuple("0123456789"))
    with pytest.warns(UserWarning, match="took the data's 'airplane' for '0', 'automobile' for '1'"):
        assert torch.equal(load_real("cifar10", numbered, split="test", root=tmp_path).labels, data.labels)


# Numbers and names -------------------------------------------------------------------------------------


def test_labels_are_matched_to_classes_that_are_numbers(tmp_path: Path) -> None:
    data = make_data(classes=12, per_class=2)
    path = save_folder(tmp_path / "pets", data, [str(number) for number in range(12)])
    spec = load_real(path).spec
    assert spec.classes == tuple(sorted(map(str, range(12))))
    save_npz(tmp_path / "pets.npz", data, ("test",))
    items = list(zip(data.images, data.labels.tolist(), strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for source in (tmp_path / "pets.npz", (data.images, data.labels), items):
            read = load_real(source, spec, split="test")
            assert [spec.classes[place] for place in read.labels] == [str(label) for label in data.labels.tolist()]


def test_numbers_for_names_are_paired_in_order_and_said(tmp_path: Path) -> None:
    grey = GREY.subset(GREY.labels.argsort(stable=True))
    folder = save_folder(tmp_path / "pets", grey, ("ant", "bee", "cow"))
    packed = save_npz(tmp_path / "organs.npz", grey, ("train", "test"))
    named, numbered = load_real(folder), load_real(packed)
    with pytest.warns(UserWarning, match="or pets has .* '0' for 'ant', '1' for 'bee', '2' for 'cow'; if") as said:
        assert_same(load_real(packed, named.spec, split="test"), grey)
    with pytest.warns(UserWarning, match="or organs has .* 'ant' for '0', 'bee' for '1', 'cow' for '2'; if") as other:
        assert_same(load_real(folder, numbered.spec, split="test"), grey)
    assert len(said) == len(other) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(load_real(packed, numbered.spec, split="test"), grey)
        assert_same(load_real((grey.images, grey.labels), named.spec), grey)  # whose classes it names


# Bad input ---------------------------------------------------------------------------------------------


def with_pixel(value: float) -> torch.Tensor:
    images = GREY.images.float() / 255
    images[3, 0, 1, 2] = value
    return images


@pytest.mark.parametrize(
    ("images", "labels", "sentence"),
    [
        (GREY.images[:0], GREY.labels[:0], "the data is empty: there is no image in it"),
        (GREY.images[:, 0, 0], GREY.labels, r"images must be \(N, C, H, W\), .* got shape \(60, 28\)"),
        (GREY.images, GREY.labels[:-1], r"60 images need as many labels, got labels of shape \(59,\)"),
        (GREY.images, torch.eye(60).long(), r"60 images need as many labels, got labels of shape \(60, 60\)"),
        (GREY.images, GREY.labels.float(), "labels must be integers, got float32"),
        (GREY.images, GREY.labels > 0, "labels must be integers, got bool"),
        (GREY.images, [None] * 60, "the labels are not numbers: got object"),
        (np.array([None] * 60), GREY.labels, "the images are not numbers: "),
        (GREY.images, GREY.labels - 1, r"labels must lie in \[0, 2\), got -1 to 1"),
        (GREY.images, GREY.labels * 10**9, r"labels must lie in \[0, 10000\), got 0 to 2000000000"),
        (GREY.images, GREY.labels * 0, "the data has a single class: a classifier needs at least two"),
        (GREY.images.expand(-1, 2, -1, -1), GREY.labels, "images must have 1 or 3 channels, got 2"),
        (GREY.images[..., 4:], GREY.labels, "images: 24x28 pixels, but images must be square; size=28 "),
        (
            GREY.images[..., 4:, 4:],
            GREY.labels,
            "images: 24x24 pixels, but images must have 28 to 128 pixels; size",
        ),
        (with_pixel(float("nan")), GREY.labels, "the images hold NaN or infinite pixels"),
        (with_pixel(float("inf")), GREY.labels, "the images hold NaN or infinite pixels"),
        (with_pixel(255), GREY.labels, r"float images must lie in \[0, 1\], got .*, 255\]: undo the normalisation"),
        (with_pixel(-0.1), GREY.labels, r"float images must lie in \[0, 1\], got \[-0.1, .*: undo the normalisation"),
    ],
)
def test_bad_pairs_raise(images: Any, labels: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        load_real((images, labels))


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (make_spec(1, 32), "images: 28x28 pixels, but tiny images are 32x32; size=32 "),
        (make_spec(1, 28, 2), r"labels must lie in \[0, 2\), got 0 to 2"),
    ],
)
def test_data_that_are_not_what_the_spec_says_raise(spec: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        load_real((GREY.images, GREY.labels), spec)


GREY_ITEM, RGB_ITEM = (GREY.images[0], 0), (RGB.images[0], 1)


@pytest.mark.parametrize(
    ("items", "sentence"),
    [
        ([], "the data is empty: there is no image in it"),
        ([GREY_ITEM, RGB_ITEM], "item 1: 32x32 pixels, but those before are 28x28; size=28 "),
        ([GREY.images[0]], r"a dataset's items must be \(image, label\) pairs, item 0 is Tensor"),
        ([GREY_ITEM, (GREY.images[0], 0, 0)], r"items must be \(image, label\) pairs, item 1 is tuple"),
        ([GREY_ITEM, {"image": 0, "label": 1}], r"items must be \(image, label\) pairs, item 1 is dict"),
        ([GREY_ITEM, (GREY.images[0], "bee")], "labels must be all integers or all names, got 0 and 'bee'"),
        ([GREY_ITEM, (GREY.images[0], 1.5)], "the label of item 1 is not an int: 1.5"),
        ([GREY_ITEM, (GREY.images[0], None)], "the label of item 1 is not an int: None"),
        ([GREY_ITEM, (GREY.images[0], [0, 1])], r"the label of item 1 is not an int: \[0, 1\]"),
        ([GREY_ITEM, GREY_ITEM], "the data has a single class"),
    ],
)
def test_bad_datasets_raise(items: list[Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        load_real(Items(items))


def test_labels_beyond_a_datasets_classes_raise() -> None:
    items = list(zip(GREY.images, GREY.labels.tolist(), strict=True))
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 2\), got 0 to 2"):
        load_real(Items(items, ("ant", "bee")))


@pytest.mark.parametrize("data", [3, None, iter([GREY_ITEM]), DataLoader([GREY_ITEM])])
def test_what_is_no_data_raises(data: Any) -> None:
    sentence = f"cannot read images from {type(data).__name__}: give a dataset of .* or a pair"
    with pytest.raises(TypeError, match=sentence):
        load_real(data)


@pytest.mark.parametrize("name", ["nowhere", "nowhere.npz", "cifar100", "photo.png"])
def test_missing_files_raise(name: str, tmp_path: Path) -> None:
    (tmp_path / "photo.png").touch()
    sentence = r"no data at '.*': give an image folder, an .npz file, .* or one of \['cifar10', .* with root="
    with pytest.raises(FileNotFoundError, match=sentence):
        load_real(tmp_path / name)


def test_npz_without_the_keys_raises(tmp_path: Path) -> None:
    path = tmp_path / "keras.npz"
    np.savez(path, x_train=last(GREY), train_labels=GREY.labels.numpy())
    with pytest.raises(ValueError, match=r"keras.npz lacks train_images; it holds train_labels, x_train"):
        load_real(path)
    with pytest.raises(ValueError, match=r"keras.npz lacks test_images and test_labels; it holds"):
        load_real(path, split="test")


@pytest.mark.parametrize("keep", [0, 3, 100, -100])
def test_truncated_npz_raises(keep: int, tmp_path: Path) -> None:
    path = save_npz(tmp_path / "cut.npz", GREY)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"cut.npz is not a readable \.npz file: "):
        load_real(path)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_text("images"),
        lambda path: path.write_bytes(pickle.dumps({"train_images": 0})),
        lambda path: path.write_bytes(gzip.compress(b"images")),
        lambda path: np.save(path.open("wb"), last(GREY)),
        lambda path: damage(save_npz(path, GREY)),
        lambda path: np.savez(path, train_images=np.array([None, "x"], dtype=object), train_labels=np.zeros(2, int)),
    ],
)
def test_what_is_no_npz_raises(write: Callable[[Path], object], tmp_path: Path) -> None:
    path = tmp_path / "bad.npz"
    write(path)
    with pytest.raises(ValueError, match=r"bad.npz is not a readable \.npz file: "):
        load_real(path)


def damage(path: Path) -> None:
    """Change bytes in the middle of the compressed images."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("train_images.npy").header_offset + 200
    content[start : start + 50] = bytes(50)
    path.write_bytes(content)


def test_pickles_in_npz_are_never_run(tmp_path: Path) -> None:
    path, mark = tmp_path / "hostile.npz", tmp_path / "mark"

    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (mark,)

    np.savez(path, train_images=np.array([Hostile()], dtype=object), train_labels=np.zeros(1, int))
    path.with_name("bare.npz").write_bytes(pickle.dumps(Hostile()))
    for name in ("hostile.npz", "bare.npz"):
        with pytest.raises(ValueError, match=r"is not a readable \.npz file"):
            load_real(tmp_path / name)
    assert not mark.exists()


def test_bad_folders_raise(tmp_path: Path) -> None:
    sentence = "needs one sub-folder of images for each of two or more classes, found"
    with pytest.raises(ValueError, match=f"{sentence} 0"):
        load_real(tmp_path)
    save_folder(tmp_path, GREY.subset((GREY.labels == 0).nonzero()[:, 0]), ("ant",))
    with pytest.raises(ValueError, match=f"{sentence} 1"):
        load_real(tmp_path)
    (tmp_path / "bee").mkdir()
    with pytest.raises(ValueError, match=r"class folder .*bee holds no images"):
        load_real(tmp_path)
    Image.new("L", (30, 28)).save(tmp_path / "bee" / "wide.png")
    with pytest.raises(ValueError, match=r"wide.png: 30x28 pixels, but those before are 28x28; size=28 "):
        load_real(tmp_path)
    good = (tmp_path / "ant" / "0000.png").read_bytes()
    for content in (b"", b"no picture", good[: len(good) // 2]):
        (tmp_path / "bee" / "wide.png").write_bytes(content)
        with pytest.raises(ValueError, match=r"wide.png is not a readable image: "):
            load_real(tmp_path)


# LabelledImages ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fraction", [0.05, 0.3, 0.9, 0.999])
def test_a_split_is_balanced_disjoint_and_exhaustive(fraction: float) -> None:
    data = make_data(classes=4, per_class=20)
    marked = replace(data, images=data.images.clone())
    marked.images[:, 0, 0, 0] = torch.arange(80).to(torch.uint8)
    rest, held = marked.split(fraction, seed=3)
    for part in (rest, held):
        assert len(torch.bincount(part.labels).unique()) == 1
        assert torch.equal(part.labels, data.labels[part.images[:, 0, 0, 0].long()])
        assert part.spec == data.spec
    numbers = [part.images[:, 0, 0, 0].tolist() for part in (rest, held)]
    assert sorted(numbers[0] + numbers[1]) == list(range(80))
    assert len(held) == 4 * min(19, max(1, round(20 * fraction)))
    again, other = marked.split(fraction, seed=3)[1], marked.split(fraction, seed=4)[1]
    assert torch.equal(again.images, held.images)
    assert fraction == 0.999 or not torch.equal(other.images, held.images)


def test_a_split_leaves_every_class_an_image() -> None:
    labels = torch.tensor([0, 0, 1, 2, 2, 2])
    data = LabelledImages(torch.zeros(6, 1, 28, 28, dtype=torch.uint8), labels, make_spec(1, 28))
    rest, held = data.split(0.5)
    assert torch.bincount(rest.labels).tolist() == [1, 1, 1]
    assert torch.bincount(held.labels).tolist() == [1, 0, 2]
    rest, held = data.subset(torch.tensor([0, 2, 3])).split(0.5)
    assert (len(rest), len(held)) == (3, 0)


@pytest.mark.parametrize("fraction", [0.05, 0.5, 0.99])
def test_photos_that_several_images_are_cut_from_stay_whole(fraction: float) -> None:
    photos = torch.repeat_interleave(torch.arange(1200), 1 + torch.arange(1200) % 6)
    spec = KNOWN_SPECS["svhn"]
    images = torch.zeros(len(photos), 3, 32, 32, dtype=torch.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = photos // 256, photos % 256
    data = LabelledImages(images, torch.arange(len(photos)) % 10, spec)
    rest, held = data.split(fraction, seed=1)
    photo = [256 * part.images[:, 0, 0, 0].long() + part.images[:, 0, 0, 1] for part in (rest, held)]
    assert not set(photo[0].tolist()) & set(photo[1].tolist())
    assert len(data) * 0.85 < len(rest) + len(held) < len(data)
    assert len(held) == pytest.approx(fraction * len(data), rel=0.15)
    assert torch.equal(data.split(fraction, seed=1)[1].images, held.images)
    assert not torch.equal(data.split(fraction, seed=2)[0].images, rest.images)
    for part, numbers in zip((rest, held), photo, strict=True):
        assert torch.equal(numbers, numbers.sort().values)
        assert len(part.labels.unique()) == 10


def test_few_images_cut_from_photos_are_split_as_others() -> None:
    data = make_data(channels=3, size=32, per_class=20)
    few = replace(data, spec=replace(data.spec, name="svhn"))
    for part, wanted in zip(few.split(0.3), data.split(0.3), strict=True):
        assert torch.equal(part.images, wanted.images)


def test_a_fingerprint_tells_data_apart() -> None:
    changed = GREY.images.clone()
    changed[7, 0, 3, 3] ^= 1
    others = [
        replace(GREY, images=changed),
        replace(GREY, labels=GREY.labels.roll(1)),
        GREY.subset(torch.arange(len(GREY) - 1)),
    ]
    prints = [data.fingerprint() for data in (GREY, *others)]
    assert len(set(prints)) == 4
    assert replace(GREY, images=GREY.images.clone()).fingerprint() == prints[0]
    channels_last = RGB.images.to(memory_format=torch.channels_last)
    assert replace(RGB, images=channels_last).fingerprint() == RGB.fingerprint()


@pytest.mark.parametrize(
    ("changes", "kind", "sentence"),
    [
        (
            {"images": GREY.images / 255},
            TypeError,
            r"images of uint8, 0 to 255, got torch.float32: load_real\(\(images",
        ),
        ({"images": GREY.images.long()}, TypeError, "images of uint8, 0 to 255, got torch.int64"),
        ({"images": GREY.images.numpy()}, TypeError, "images of uint8, 0 to 255, got ndarray"),
        ({"images": GREY.images[:, 0]}, ValueError, r"tiny images are \(N, 1, 28, 28\), got shape \(60, 28, 28\)"),
        ({"images": RGB.images}, ValueError, r"tiny images are \(N, 1, 28, 28\), got shape \(60, 3, 32, 32\)"),
        ({"images": ImageRows(RGB.images.numpy())}, ValueError, r"tiny images are .*, got shape \(60, 3, 32, 32\)"),
        ({"spec": make_spec(3, 28)}, ValueError, r"tiny images are \(N, 3, 28, 28\), got shape \(60, 1, 28, 28\)"),
        ({"labels": GREY.labels.int()}, TypeError, "labels of int64, got torch.int32"),
        ({"labels": GREY.labels.tolist()}, TypeError, "labels of int64, got list"),
        ({"labels": GREY.labels[:-1]}, ValueError, r"60 images need as many labels, got labels of shape \(59,\)"),
        ({"labels": GREY.labels[:, None]}, ValueError, r"60 images need as many labels, got labels of shape \(60, 1\)"),
        ({"soft": torch.ones(60, 3, dtype=torch.int64)}, TypeError, "soft labels of floats, got torch.int64"),
        ({"soft": torch.ones(60, 2)}, ValueError, r"soft labels must be \(60, 3\), got shape \(60, 2\)"),
    ],
)
def test_labelled_images_are_what_they_say(changes: dict[str, Any], kind: type[Exception], sentence: str) -> None:
    with pytest.raises(kind, match=sentence):
        replace(GREY, **changes)


@pytest.mark.parametrize("label", [-1, 3])
@pytest.mark.parametrize("spec", [None, GREY.spec, make_spec(1, 28, 5)])
def test_labels_beyond_the_classes_of_images_in_memory_raise(label: int, spec: Any) -> None:
    labels = GREY.labels.clone()
    labels[7] = label
    sentence = rf"labels must lie in \[0, 3\), got {min(0, label)} to {max(2, label)}"
    with pytest.raises(ValueError, match=sentence):
        load_real(replace(GREY, labels=labels), spec)


def test_no_images_in_memory_raise() -> None:
    with pytest.raises(ValueError, match="the data is empty: there is no image in it"):
        load_real(GREY.subset(torch.arange(0)))
