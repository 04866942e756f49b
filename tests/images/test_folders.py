"""Folders as people have them: what torchvision's ImageFolder reads is read, in its order, and more."""

from __future__ import annotations

import os
import random
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, features
from torchvision.datasets import ImageFolder

from dim_data.images import load_real
from dim_data.images.modes import image_formats

RNG = np.random.default_rng(0)


def save(path: Path, pixels: np.ndarray | None = None, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 256, (28, 28, 3), np.uint8) if pixels is None else pixels
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    for name in ("ant", "bee"):
        save(tmp_path / "pets" / name / "0.png")
    return tmp_path / "pets"


def assert_as_torchvision(path: Path) -> None:
    """The same classes, labels and pixels, in the same order, and no word about it."""
    theirs = ImageFolder(str(path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = load_real(path)
    assert list(ours.spec.classes) == theirs.classes
    assert ours.labels.tolist() == theirs.targets
    for image, (picture, _) in zip(ours.images, theirs, strict=True):
        assert np.array_equal(image.permute(1, 2, 0), picture)


def test_files_at_any_depth_in_torchvisions_order(tmp_path: Path) -> None:
    names = ["z", "a10", "a2", "B", "a", "Ä", "_", "a b", "10", "9"]
    for label in names:
        places = ["7.png", "10.PNG", "sub/1.jpg", "sub/deep/2.bmp", "sub-1/3.png", "Sub/4.JPEG", "a.b/5.webp", "é.png"]
        random.Random(label).shuffle(places)
        for place in places:
            save(tmp_path / label / place)
    assert_as_torchvision(tmp_path)
    assert load_real(tmp_path).spec.classes == tuple(sorted(names))


def test_every_format_that_pillow_reads(pets: Path) -> None:
    written = {
        ".png",
        ".jpg",
        ".jpe",
        ".jfif",
        ".jpeg",
        ".bmp",
        ".dib",
        ".ppm",
        ".pnm",
        ".tif",
        ".tiff",
        ".webp",
        ".gif",
    }
    written |= {".tga", ".ico", ".pcx", ".sgi"}
    written |= {".avif"} if ".avif" in image_formats() else set()
    written |= {".jp2", ".j2k"} if features.check("jpg_2000") else set()
    for suffix in written:
        options: dict[str, object] = {"sizes": [(28, 28)]} if suffix == ".ico" else {}
        save(pets / "ant" / f"1{suffix}", **options)
    grey = save(pets / "ant" / "1.pgm", RNG.integers(0, 256, (28, 28), np.uint8))
    read = load_real(pets)
    assert len(read) == 2 + len(written) + 1
    files = sorted((pets / "ant").iterdir(), key=lambda file: file.name)
    place = files.index(grey)
    assert torch.equal(read.images[place], torch.from_numpy(np.array(Image.open(grey))).expand(3, 28, 28))
    assert {".h5", ".mpg", ".eps", ".wmf", ".pdf"}.isdisjoint(image_formats())


def test_what_is_skipped_is_counted_and_said(pets: Path) -> None:
    for name in ("ant/notes.txt", "ant/deep/labels.csv", "ant/._0.png", "list.txt", "bee/clip.mp4"):
        (pets / name).parent.mkdir(exist_ok=True)
        (pets / name).write_bytes(b"no picture")
    save(pets / "beside.png")
    sentence = r"skipped 6 files \(no images, or hidden\): ant/\._0\.png, ant/notes\.txt, ant/deep/labels\.csv, \.\.\.$"
    with pytest.warns(UserWarning, match=sentence) as said:
        read = load_real(pets)
    assert len(said) == 1
    assert read.labels.tolist() == [0, 1]


def test_what_systems_leave_behind_is_nothing_to_speak_of(pets: Path) -> None:
    for name in (".DS_Store", "ant/.DS_Store", "ant/Thumbs.db", "bee/desktop.ini", "__MACOSX/ant/._0.png"):
        (pets / name).parent.mkdir(parents=True, exist_ok=True)
        (pets / name).write_bytes(b"something")
    save(pets / ".ipynb_checkpoints" / "0.png")
    save(pets / "ant" / ".ipynb_checkpoints" / "0-checkpoint.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = load_real(pets)
    assert read.spec.classes == ("ant", "bee")
    assert len(read) == 2


def test_links_are_followed_but_not_in_circles(pets: Path, tmp_path: Path) -> None:
    save(tmp_path / "elsewhere" / "1.png")
    (pets / "ant" / "linked").symlink_to(tmp_path / "elsewhere")
    (pets / "cow").symlink_to(tmp_path / "elsewhere")
    (pets / "bee" / "1.png").symlink_to(pets / "ant" / "0.png")
    assert_as_torchvision(pets)
    (pets / "ant" / "itself").symlink_to(pets / "ant")
    (pets / "ant" / "above").symlink_to(pets)
    assert load_real(pets).labels.tolist() == [0, 0, 1, 1, 2]
    (pets / "bee" / "2.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(FileNotFoundError, match=r"bee/2.png"):
        load_real(pets)


def test_folders_that_link_to_each_other_are_read_once_each(pets: Path, tmp_path: Path) -> None:
    (pets / "ant" / "bees").symlink_to(pets / "bee")
    (pets / "bee" / "ants").symlink_to(pets / "ant")
    assert load_real(pets).labels.tolist() == [0, 0, 1, 1]
    save(tmp_path / "one" / "inner" / "0.png")
    save(tmp_path / "two" / "inner" / "0.png")
    (tmp_path / "one" / "inner" / "up").symlink_to(tmp_path / "two")
    (tmp_path / "two" / "inner" / "up").symlink_to(tmp_path / "one")
    (pets / "ant" / "round").symlink_to(tmp_path / "one")
    assert load_real(pets).labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]  # both come by the link to the other, too


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif", ".bmp", ".tif", ".webp", ".jp2", ".ppm", ".tga", ".ico"])
@pytest.mark.parametrize("damage", ["empty", "text", "cut", "noise", "header"])
def test_damaged_files_of_every_format_are_named(suffix: str, damage: str, pets: Path) -> None:
    options: dict[str, object] = {"sizes": [(28, 28)]} if suffix == ".ico" else {}
    file = save(pets / "bee" / f"1{suffix}", **options)
    good = file.read_bytes()
    noise = bytes(RNG.integers(0, 256, len(good), np.uint8))
    bad = {"empty": b"", "text": b"no picture" * 9, "cut": good[: len(good) // 3], "noise": noise, "header": good[:16]}
    file.write_bytes(bad[damage])
    with pytest.raises(ValueError, match=rf"bee/1{suffix} is not a readable image: ."):
        load_real(pets)


def test_broken_chunks_are_named(pets: Path) -> None:
    good = (pets / "bee" / "0.png").read_bytes()
    start = good.index(b"IDAT")
    for at in (12, start, start + 40, start - 2):
        content = bytearray(good)
        content[at] ^= 255
        (pets / "bee" / "0.png").write_bytes(content)
        with pytest.raises(ValueError, match=r"bee/0.png is not a readable image: "):
            load_real(pets)


@pytest.mark.parametrize("limit", [500, 300])
def test_bombs_are_named(limit: int, pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with pytest.raises(
            ValueError, match="ant/0.png is not a readable image: .*784" if limit == 300 else "MAX_IMAGE_PIXELS"
        ):
            load_real(pets)


def test_a_postscript_file_in_disguise_is_not_run(pets: Path) -> None:
    (pets / "bee" / "0.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 28 28\n%%EndComments\n")
    with pytest.raises(ValueError, match=r"bee/0.png is not a readable image: cannot identify"):
        load_real(pets)


def test_folders_of_splits_are_read_there(tmp_path: Path) -> None:
    for split in ("Train", "validation", "test"):
        for name in ("ant", "bee"):
            save(tmp_path / "set" / split / name / "0.png")
    for split, place in (("train", "Train"), ("val", "validation"), ("test", "test")):
        read = load_real(tmp_path / "set", split=split)
        assert torch.equal(read.images, load_real(tmp_path / "set" / place).images)
        assert (read.spec.name, read.spec.classes) == ("set", ("ant", "bee"))
    shutil.rmtree(tmp_path / "set" / "test")
    with pytest.raises(ValueError, match=r"set has no split 'test', only 'Train', 'validation'"):
        load_real(tmp_path / "set", split="test")
    shutil.rmtree(tmp_path / "set" / "Train" / "ant")
    with pytest.raises(ValueError, match=r"Train needs one sub-folder of images .* two or more classes, found 1"):
        load_real(tmp_path / "set")


@pytest.mark.parametrize("beside", ["unlabeled/0.png", "eval/ant/0.png", "Train set/ant/0.png"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_splits_beside_other_folders_are_no_classes(beside: str, split: str, tmp_path: Path) -> None:
    for place in ("train", "Test"):
        for name in ("ant", "bee"):
            save(tmp_path / "set" / place / name / "deep" / "0.png")
    save(tmp_path / "set" / beside)
    wanted = {"train": "train", "test": "Test"}[split]
    sentence = (
        rf"set holds 'Test', 'train' with folders of images in them, and beside that '{beside.split('/')[0]}': as "
        rf"classes they would mix splits. Leave nothing but splits there, or give .*set/{wanted}; a class of that name"
    )
    with pytest.raises(ValueError, match=sentence):
        load_real(tmp_path / "set", split=split)
    with pytest.raises(ValueError, match=sentence):
        load_real(tmp_path / "set", load_real(tmp_path / "set" / "train").spec, split=split)


def test_splits_within_splits_are_no_classes(tmp_path: Path) -> None:
    for place in ("train/train", "train/test", "test"):
        for name in ("ant", "bee"):
            save(tmp_path / place / name / "0.png")
    with pytest.raises(ValueError, match=r"train holds 'test', 'train' with folders of images in them: as classes"):
        load_real(tmp_path)
    assert load_real(tmp_path / "train").spec.classes == ("ant", "bee")


def test_a_class_may_be_called_as_splits_are(tmp_path: Path) -> None:
    for place in ("car/0.png", "train/0.png", "train/steam/1.png", "dev/0.png"):
        save(tmp_path / place)
    (tmp_path / "train" / "steam" / ".hidden").mkdir()
    assert_as_torchvision(tmp_path)
    assert load_real(tmp_path).spec.classes == ("car", "dev", "train")


def test_pictures_without_class_folders_are_told(tmp_path: Path) -> None:
    for index in range(3):
        save(tmp_path / f"{index}.png")
    with pytest.raises(ValueError, match="for each of two or more classes, found 0, and 3 images beside them"):
        load_real(tmp_path)


def test_a_test_folder_may_lack_classes_but_not_invent_them(pets: Path, tmp_path: Path) -> None:
    save(pets / "cow" / "0.png")
    spec = load_real(pets).spec
    for name in ("bee", "cow"):
        save(tmp_path / "some" / name / "0.png")
    assert load_real(tmp_path / "some", spec).labels.tolist() == [1, 2]
    shutil.rmtree(tmp_path / "some" / "bee")
    assert load_real(tmp_path / "some", spec).labels.tolist() == [2]
    save(tmp_path / "some" / "dog" / "0.png")
    with pytest.raises(ValueError, match="pets has no class 'dog'; its 3 classes are 'ant', 'bee', 'cow': rename"):
        load_real(tmp_path / "some", spec)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_cannot_be_listed_is_told(pets: Path) -> None:
    (pets / "ant" / "locked").mkdir(mode=0)
    with pytest.raises(PermissionError, match="locked"):
        load_real(pets)


def lay(root: Path, *folders: str) -> Path:
    for folder in folders:
        save(root / folder / "0.png")
    return root


@pytest.mark.parametrize(
    "words", [("training_set", "test_set"), ("seg_train", "seg_test"), ("train-images", "Testing")]
)
def test_splits_by_longer_names(words: tuple[str, str], tmp_path: Path) -> None:
    root = lay(tmp_path / "set", *(f"{word}/{name}" for word in words for name in ("ant", "bee")))
    save(root / words[1] / "bee" / "1.png")
    assert load_real(root).labels.tolist() == [0, 1]
    assert load_real(root, split="test").labels.tolist() == [0, 1, 1]


def test_two_folders_that_may_be_the_split_are_refused(tmp_path: Path) -> None:
    root = lay(tmp_path / "set", *(f"{word}/{name}" for word in ("train", "training") for name in ("ant", "bee")))
    with pytest.raises(ValueError, match=r"set has 2 splits that may be 'train': 'train', 'training'"):
        load_real(root)


def test_splits_inside_of_classes_are_refused(tmp_path: Path) -> None:
    root = lay(tmp_path / "set", "ant/train", "ant/test", "bee/train", "bee/test")
    with pytest.raises(
        ValueError, match=r"class folder .*ant holds 'test', 'train': as one class they would mix splits"
    ):
        load_real(root)


def test_classes_that_lie_in_one_of_them_again_are_refused(tmp_path: Path) -> None:
    root = lay(tmp_path / "set", "ant", "bee", "cell_images/ant", "cell_images/bee")
    with pytest.raises(ValueError, match=r"cell_images holds 'ant', 'bee', which lie beside it, too: as classes they"):
        load_real(root)


def test_what_may_be_variants_or_parts_is_said(tmp_path: Path) -> None:
    root = lay(tmp_path / "set", *(f"{kind}/{name}" for kind in ("color", "grey") for name in ("apple", "corn")))
    with pytest.warns(
        UserWarning, match=r"each class of .* holds 'apple', 'corn': .* parts of the classes 'color', 'gr"
    ):
        assert load_real(root).spec.classes == ("color", "grey")
    one_each = lay(tmp_path / "other", "ant/images", "bee/images", "cow/images")
    some = lay(tmp_path / "some", "ant/2019", "ant/2020", "bee/2020", "bee/2021")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_real(one_each).labels.tolist() == [0, 1, 2]
        assert load_real(some).labels.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("name", ["@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found", "#recycle"])
def test_folders_of_systems_hold_no_images(name: str, pets: Path) -> None:
    save(pets / name / "0.png")
    save(pets / "ant" / name / "0.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_real(pets).labels.tolist() == [0, 1]
