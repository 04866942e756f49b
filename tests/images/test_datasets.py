"""Datasets of other people: parts of datasets, streams, and the tables of Hugging Face's ``datasets``."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ChainDataset, ConcatDataset, IterableDataset, Subset, TensorDataset, random_split
from torchvision.datasets import FakeData, ImageFolder

from conftest import make_data, make_spec
from dim_data.images import KNOWN_SPECS, LabelledImages, load_real

DATA = make_data(3, 28, per_class=4)
PICTURES = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in DATA.images]
LABELS = DATA.labels.tolist()
NAMES = ["cow", "ant", "bee"]


def same(read: LabelledImages, labels: Any = DATA.labels, names: Any = NAMES) -> None:
    assert torch.equal(read.images, DATA.images)
    assert torch.equal(read.labels, torch.as_tensor(labels))
    assert list(read.spec.classes) == list(names)


# Parts and streams -------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> ImageFolder:
    for index, (picture, label) in enumerate(zip(PICTURES, LABELS, strict=True)):
        (tmp_path / "pets" / NAMES[label]).mkdir(parents=True, exist_ok=True)
        picture.save(tmp_path / "pets" / NAMES[label] / f"{index:02}.png")
    return ImageFolder(str(tmp_path / "pets"))


@pytest.mark.parametrize(
    "part",
    [
        lambda d: Subset(d, range(12)),
        lambda d: Subset(Subset(d, range(12)), range(12)),
        lambda d: random_split(d, [12, 0])[0],
        lambda d: ConcatDataset([Subset(d, range(6)), Subset(d, range(6, 12))]),
        lambda d: Subset(ConcatDataset([d, d]), range(12)),
        lambda d: ConcatDataset([d, TensorDataset(DATA.images, DATA.labels)]),
    ],
)
def test_parts_keep_the_names_of_classes(part: Callable[[Any], Any], folder: ImageFolder) -> None:
    data = part(folder)
    read = load_real(data)
    assert (read.spec.name, read.spec.classes) == ("imagefolder", ("ant", "bee", "cow"))
    reordered = make_spec(3, 28)
    reordered = type(reordered)(**{**vars(reordered), "classes": ("bee", "cow", "ant")})
    again = load_real(data, reordered)
    assert torch.equal(again.labels, torch.tensor([2, 0, 1])[read.labels])


def test_a_part_of_a_known_set_is_known() -> None:
    whole = type("CIFAR10", (FakeData,), {})(40, (3, 32, 32), 10)
    whole.classes = list(KNOWN_SPECS["cifar10"].classes)
    assert load_real(whole).spec == KNOWN_SPECS["cifar10"]
    assert load_real(random_split(whole, [30, 10])[0]).spec == KNOWN_SPECS["cifar10"]
    other = load_real(whole, size=28).spec
    assert (other.name, other.size, other.classes) == ("cifar10", 28, KNOWN_SPECS["cifar10"].classes)
    assert other.mirror
    whole.classes = ["pet", "other", *map(str, range(8))]
    assert load_real(whole).spec.classes == tuple(whole.classes)


def test_joined_sets_of_different_names_are_refused(folder: ImageFolder) -> None:
    other = ImageFolder(folder.root)
    other.classes = ["bee", "cow", "dog"]
    with pytest.raises(ValueError, match=r"name their classes differently, .* \['ant', 'bee', 'cow'\] and \['bee', "):
        load_real(ConcatDataset([folder, other]))


class Stream(IterableDataset):
    def __init__(self, items: list[Any], classes: Any = None) -> None:
        self.items, self.classes = items, classes

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)


def test_streams_of_pairs() -> None:
    items = list(zip(PICTURES, LABELS, strict=True))
    same(load_real(Stream(items)), names="012")
    same(load_real(Stream(items, NAMES)))
    same(load_real(ChainDataset([Stream(items[:5], NAMES), Stream(items[5:], NAMES)])))
    many = [(PICTURES[index % 12], index % 3) for index in range(1000)]  # longer than the first guess
    assert torch.equal(load_real(Stream(many)).images, DATA.images[torch.arange(1000) % 12])
    with pytest.raises(ValueError, match="the data is empty"):
        load_real(Stream([]))


def test_a_mapping_of_splits() -> None:
    items = list(zip(PICTURES, LABELS, strict=True))
    splits = {"train": items, "valid": items[:6]}
    same(load_real(splits), names="012")
    assert len(load_real(splits, split="val")) == 6
    with pytest.raises(ValueError, match="dict has no split 'test', only 'train', 'valid'"):
        load_real(splits, split="test")


def test_labels_that_are_names() -> None:
    names = [NAMES[label] for label in LABELS]
    wanted = torch.tensor([2, 0, 1])[DATA.labels]
    for data in (list(zip(PICTURES, names, strict=True)), (DATA.images, names), (DATA.images, np.array(names))):
        same(load_real(data), wanted, sorted(NAMES))
    spec = make_spec(3, 28)
    with pytest.raises(ValueError, match="tiny has no class 'ant', 'bee', 'cow'"):
        load_real((DATA.images, names), type(spec)(**{**vars(spec), "classes": ("class0", "x", "y")}))


@pytest.mark.parametrize("keys", [("image", "label"), ("x", "y")])
def test_items_with_keys(keys: tuple[str, str]) -> None:
    items = [dict(zip(keys, pair, strict=True)) | {"id": 3} for pair in zip(PICTURES, LABELS, strict=True)]
    same(load_real(items, columns=keys), names="012")
    same(load_real([(0, *pair) for pair in zip(PICTURES, LABELS, strict=True)], columns=(1, 2)), names="012")
    if keys[0] == "image":
        same(load_real(items), names="012")
    else:
        with pytest.raises(ValueError, match="item 0 is dict: columns= names the image and the label"):
            load_real(items)
    with pytest.raises(ValueError, match=r"columns=\('a', 'b'\) are not in item 0, which has the keys \['"):
        load_real(items, columns=("a", "b"))
    with pytest.raises(ValueError, match=r"columns=\('a', 'b'\) are not in item 0, which is tuple"):
        load_real([(PICTURES[0], 0)], columns=("a", "b"))


# Tables ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The library, offline, with its cache in a folder of its own."""
    patch = pytest.MonkeyPatch()
    home = tmp_path_factory.mktemp("hf")
    for name in ("HF_DATASETS_OFFLINE", "HF_HUB_OFFLINE"):
        patch.setenv(name, "1")
    patch.setenv("HF_DATASETS_CACHE", str(home))
    datasets = pytest.importorskip("datasets")
    patch.setattr(datasets.config, "HF_DATASETS_CACHE", home)
    datasets.disable_progress_bars()
    yield datasets
    patch.undo()


@pytest.fixture(scope="module")
def table(tables: Any) -> Any:
    """Columns ``id``, ``img`` and ``what``."""
    features = tables.Features(
        {"id": tables.Value("int64"), "img": tables.Image(), "what": tables.ClassLabel(names=NAMES)}
    )
    return tables.Dataset.from_dict({"id": list(range(12)), "img": PICTURES, "what": LABELS}, features)


def test_columns_are_found_by_type(table: Any) -> None:
    read = load_real(table)
    same(read)
    assert read.spec.name == "table"
    spec = make_spec(3, 28)
    spec = type(spec)(**{**vars(spec), "classes": ("ant", "bee", "cow", "dog")})
    assert torch.equal(load_real(table, spec).labels, torch.tensor([2, 0, 1])[DATA.labels])
    same(load_real(Subset(table, range(12))))
    same(load_real(table.to_iterable_dataset()))
    same(load_real(ConcatDataset([table.select(range(6)), table.select(range(6, 12))])))


def test_parquet_and_arrow_files(tables: Any, table: Any, tmp_path: Path) -> None:
    table.to_parquet(tmp_path / "train.parquet")
    table.select(range(6)).to_parquet(tmp_path / "test.parquet")
    files = {name: str(tmp_path / f"{name}.parquet") for name in ("train", "test")}
    splits = tables.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))
    same(load_real(splits))
    assert len(load_real(splits, split="test")) == 6
    same(load_real(splits["train"]))
    streamed = tables.load_dataset("parquet", data_files=files, streaming=True)
    same(load_real(streamed))
    same(load_real(streamed["train"]))
    with pytest.raises(ValueError, match="DatasetDict has no split 'val', only 'train', 'test'"):
        load_real(splits, split="val")
    splits["validation"] = splits.pop("test")
    assert len(load_real(splits, split="val")) == 6
    splits.save_to_disk(tmp_path / "arrow")
    same(load_real(tables.load_from_disk(tmp_path / "arrow")))
    same(load_real(tables.load_from_disk(tmp_path / "arrow")["train"]))


def test_image_folders_of_the_library(tables: Any, folder: ImageFolder, tmp_path: Path) -> None:
    found = tables.load_dataset("imagefolder", data_dir=folder.root, cache_dir=str(tmp_path / "cache"))
    mine, theirs = load_real(folder.root), load_real(found)
    assert torch.equal(mine.images, theirs.images)
    assert torch.equal(mine.labels, theirs.labels)
    assert mine.spec.classes == theirs.spec.classes


def encoded(picture: Image.Image) -> dict[str, Any]:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def test_images_in_every_column(tables: Any, table: Any) -> None:
    same(load_real(table.cast_column("img", tables.Image(decode=False))))
    same(load_real(table.with_format("torch")))
    same(load_real(table.with_format("numpy")))
    arrays = {"x": DATA.images.numpy(), "label": LABELS}
    for shape, values in (((3, 28, 28), DATA.images.numpy()), ((28, 28, 3), DATA.images.permute(0, 2, 3, 1).numpy())):
        features = tables.Features({"x": tables.Array3D(shape, "uint8"), "label": tables.Value("int32")})
        same(load_real(tables.Dataset.from_dict(arrays | {"x": values}, features)), names="012")
    bare = tables.Dataset.from_dict({"image": [encoded(p) for p in PICTURES], "label": LABELS})
    same(load_real(bare, columns=("image", "label")), names="012")
    renamed = table.map(lambda row: {"what_else": NAMES[row["what"]]})
    same(load_real(renamed, columns=("img", "what_else")), torch.tensor([2, 0, 1])[DATA.labels], sorted(NAMES))
    unknown = table.rename_columns({"what": "label"}).to_iterable_dataset().map(lambda row: row)
    assert unknown.features is None
    same(load_real(unknown), names="012")


def test_columns_that_are_not_clear_are_asked_for(tables: Any, table: Any) -> None:
    two = table.add_column("fine", LABELS).cast_column("fine", tables.ClassLabel(names=["x", "y", "z"]))
    sentence = (
        r"1 columns of images and 2 of labels among 'id' \(Value\), 'img' \(Image\), 'what' \(ClassLabel\), 'fine'"
    )
    with pytest.raises(ValueError, match=sentence + r".*: name one of each, such as columns=\('image', 'label'\)"):
        load_real(two)
    same(load_real(two, columns=("img", "fine")), names="xyz")
    with pytest.raises(ValueError, match="no columns of images and 1 of labels"):
        load_real(table.remove_columns("img"))
    with pytest.raises(ValueError, match=r"columns=\('img', 'label'\) are not in item 0, which has the keys \['id', "):
        load_real(table, columns=("img", "label"))


def test_hidden_labels_and_damaged_images_are_told(tables: Any, table: Any) -> None:
    hidden = table.map(lambda row: {"what": -1}, features=table.features)
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 3\), got -1 to -1"):
        load_real(hidden)
    content = [encoded(picture) for picture in PICTURES]
    content[5] = {"bytes": content[5]["bytes"][:300], "path": None}
    damaged = tables.Dataset.from_dict({"image": content, "label": LABELS}).cast_column("image", tables.Image())
    with pytest.raises(ValueError, match="item 5 cannot be read: "):
        load_real(damaged)
    with pytest.raises(ValueError, match="item 5 is not a readable image: "):
        load_real(damaged.cast_column("image", tables.Image(decode=False)))


def test_nobody_else_imports_the_library(folder: ImageFolder) -> None:
    code = """
import json, sys
from torchvision.datasets import ImageFolder
from dim_data.images import load_real
load_real(sys.argv[1]), load_real(ImageFolder(sys.argv[1]))
print(json.dumps(sorted({"datasets", "pyarrow"} & set(sys.modules))))
"""
    run = subprocess.run([sys.executable, "-c", code, folder.root], capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) == []


def test_a_damaged_file_behind_a_dataset_is_named_by_its_item(tmp_path: Path) -> None:
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.full((28, 28, 3), 99, np.uint8)).save(tmp_path / name / "0.png")
    content = (tmp_path / "bee" / "0.png").read_bytes()
    (tmp_path / "bee" / "0.png").write_bytes(content[:60])
    with pytest.raises(ValueError, match="item 1 cannot be read: "):
        load_real(ImageFolder(str(tmp_path)))
    opened = [(Image.open(tmp_path / name / "0.png"), label) for label, name in enumerate(("ant", "bee"))]
    with pytest.raises(ValueError, match="item 1 is not a readable image: "):
        load_real(opened)


def test_class_names_in_an_array_are_names() -> None:
    class Named(list[Any]):
        classes = np.array(["ant", "bee"])

    image = Image.fromarray(np.full((28, 28), 99, np.uint8))
    assert load_real(Named([(image, 0), (image, 1)])).spec.classes == ("ant", "bee")
