"""Sets too large for memory: the same images as in memory, decoded once, into a file that is mapped."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import IterableDataset

from conftest import make_data
from dim_data.images import (
    ImageRows,
    LabelledImages,
    cache_folder,
    cached_images,
    load_real,
    pictures,
    remove_cached,
    rows,
    stores,
)
from dim_data.images.pixels import Pixels
from dim_data.images.stores import PictureStore

DATA = make_data(3, 32, per_class=8)
SENTENCE = "is too large for memory, and cannot be kept in"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder, for sets of more than four pictures."""
    monkeypatch.setenv("DIM_DATA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DIM_DATA_MAP_ABOVE", str(4 * 3 * 32 * 32))
    monkeypatch.setattr(pictures, "BATCH", 5)
    monkeypatch.setattr(stores, "SECONDS", 0.0)
    return tmp_path / "cache"


def in_memory(data: Any, **options: Any) -> LabelledImages:
    with pytest.MonkeyPatch().context() as patch:
        patch.delenv("DIM_DATA_MAP_ABOVE")
        read = load_real(data, **options)
    assert isinstance(read.images, torch.Tensor)
    return read


def assert_same(mapped: LabelledImages, wanted: LabelledImages) -> None:
    assert isinstance(mapped.images, ImageRows)
    assert torch.equal(mapped.images[:], wanted.images[:])
    assert torch.equal(mapped.labels, wanted.labels)
    assert mapped.spec == wanted.spec
    assert mapped.fingerprint() == wanted.fingerprint()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index, (image, label) in enumerate(zip(DATA.images, DATA.labels.tolist(), strict=True)):
        path = tmp_path / "photos" / DATA.spec.classes[label] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    return tmp_path / "photos"


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    images = DATA.images.permute(0, 2, 3, 1).contiguous().numpy()
    np.savez_compressed(tmp_path / "set.npz", train_images=images, train_labels=DATA.labels[:, None].numpy())
    return tmp_path / "set.npz"


class Items:
    """A map-style dataset, or a stream, of PIL images."""

    def __init__(self, grey: int = 0) -> None:
        found = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in DATA.images]
        self.items = [
            (image.convert("L") if index < grey else image, label)
            for index, (image, label) in enumerate(zip(found, DATA.labels.tolist(), strict=True))
        ]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(Items().items)


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are decoded."""
    decoded: list[str] = []
    original = Pixels.file

    def counted(self: Pixels, file: Any, where: str) -> Any:
        decoded.append(where)
        return original(self, file, where)

    monkeypatch.setattr(Pixels, "file", counted)
    return decoded


# The same images --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [None, 28])
def test_folders_are_mapped_as_they_are_read(folder: Path, size: int | None) -> None:
    assert_same(load_real(folder, size=size), in_memory(folder, size=size))
    assert [(found.name, found.count, found.finished) for found in cached_images()] == [("photos", 24, True)]


@pytest.mark.parametrize("size", [None, 28])
@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_npz_files_are_mapped_as_they_are_read(
    npz: Path, size: int | None, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dim_data.images.slices.CHUNK", chunk)
    assert_same(load_real(npz, size=size), in_memory(npz, size=size))
    assert [(found.name, found.count, found.finished) for found in cached_images()] == [("set", 24, True)]


def test_tables_are_mapped_as_they_are_read() -> None:
    datasets = pytest.importorskip("datasets")
    items = Items().items
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=list("abc"))})
    table = datasets.Dataset.from_dict({"img": [x for x, _ in items], "label": [y for _, y in items]}, features)
    assert_same(load_real(table), in_memory(table))
    assert [(found.name, found.finished) for found in cached_images()] == [("table", True)]


@pytest.mark.parametrize(
    "data",
    [
        Items(),
        Stream(),
        (DATA.images.float() / 255, DATA.labels),
        (DATA.images.permute(0, 2, 3, 1), DATA.labels),
        (DATA.images.numpy().astype(np.int64), DATA.labels[:, None].numpy()),
    ],
    ids=["items", "stream", "floats", "channels last", "int64"],
)
def test_what_cannot_be_told_leaves_no_file_behind(data: Any, cache: Path) -> None:
    assert_same(load_real(data), in_memory(data))
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("images", [DATA.images, DATA.images.numpy()])
def test_tensors_that_need_no_conversion_stay_where_they_are(images: Any, cache: Path) -> None:
    read = load_real((images, DATA.labels))
    assert_same(read, in_memory((images, DATA.labels)))
    assert not cache.exists()
    images[0, 0, 0, 0] += 1
    try:
        assert torch.equal(read.images[0], torch.as_tensor(images[0]))
    finally:
        images[0, 0, 0, 0] -= 1


@pytest.mark.parametrize("grey", [1, 5, 13, 24])
def test_grey_pictures_before_those_in_colour(grey: int) -> None:
    assert_same(load_real(Items(grey)), in_memory(Items(grey)))
    assert load_real(Items(grey)).spec.channels == (1 if grey == 24 else 3)


def test_sets_below_the_threshold_stay_in_memory(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIM_DATA_MAP_ABOVE", str(DATA.images.numel()))
    assert isinstance(load_real(folder).images, torch.Tensor)
    assert not cache.exists()
    monkeypatch.setenv("DIM_DATA_MAP_ABOVE", "1 GB")
    with pytest.raises(ValueError, match="DIM_DATA_MAP_ABOVE must be a whole number of bytes, such as 1073741824, got"):
        load_real(folder)


def test_splits_and_other_specs_read_no_image(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mapped, wanted = load_real(folder), in_memory(folder)
    spec = replace(wanted.spec, classes=wanted.spec.classes[::-1])
    with monkeypatch.context() as patch:
        patch.setattr(rows.np, "take", None)
        parts = *mapped.split(0.3, 5), mapped.in_terms_of(spec), mapped.subset(torch.tensor([7, 3, 3]))
        nested = parts[0].subset(torch.tensor([1, 0]))
    wanteds = *wanted.split(0.3, 5), wanted.in_terms_of(spec), wanted.subset(torch.tensor([7, 3, 3]))
    for part, whole in zip((*parts, nested), (*wanteds, wanteds[0].subset(torch.tensor([1, 0]))), strict=True):
        assert_same(part, whole)


def test_grey_ones_in_terms_of_a_set_in_colour_and_back(tmp_path: Path) -> None:
    grey = load_real(Items(24))
    colour = grey.in_terms_of(replace(DATA.spec, classes=grey.spec.classes))
    assert_same(colour, in_memory(Items(24)).in_terms_of(colour.spec))
    assert_same(colour.in_terms_of(grey.spec), in_memory(Items(24)))
    with pytest.raises(ValueError, match="images are grey, and these are in colour: convert them first"):
        load_real(Items()).in_terms_of(grey.spec)


@pytest.mark.parametrize(
    "index",
    [
        slice(3, 9),
        slice(None, None, 2),
        torch.tensor([5, -1, 5]),
        torch.arange(24) % 3 == 0,
        torch.tensor([]).long(),
        torch.tensor(7),
        np.int64(7),
        [2, 0],
        np.array([2, -2]),
        np.arange(24) > 20,
    ],
    ids=str,
)
@pytest.mark.parametrize("some", [False, True])
def test_an_index_gives_what_a_tensor_would(index: Any, some: bool) -> None:
    order = torch.arange(24).flip(0)
    images = ImageRows(DATA.images.numpy())
    found, wanted = (images.at(order), DATA.images[order]) if some else (images, DATA.images)
    assert torch.equal(found[index], wanted[index])
    assert torch.equal(found[-2], wanted[-2])
    assert all(torch.equal(a, b) for a, b in zip(found.split(7), wanted.split(7), strict=True))
    assert torch.equal(torch.stack(list(found)), wanted)
    assert found.shape == wanted.shape
    for bad in (24, torch.tensor(24), torch.tensor([24]), torch.ones(7, dtype=torch.bool)):
        with pytest.raises(IndexError):
            found[bad]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux")
@pytest.mark.parametrize("way", ["in order", "at random"])
@pytest.mark.parametrize("told", [True, False])
def test_pages_of_a_mapped_file_are_let_go_of(
    way: str, told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "RESIDENT", 4 << 20)
    if not told:
        monkeypatch.setattr(rows, "STATM", tmp_path / "none")
    path, shape = tmp_path / "images", (8192, 3, 64, 64)
    path.write_bytes(bytes(96 << 20))
    images, before, most = rows.map_images(path, shape), resident(), 0
    for part in torch.arange(len(images)).split(64) if way == "in order" else torch.randperm(len(images)).split(64):
        assert len(images[part]) == 64
        most = max(most, resident() - before)
    assert most < 48 << 20


def resident() -> int:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("RssFile"))
    return int(line.split()[1]) << 10


# Once only --------------------------------------------------------------------------------------------


def test_a_folder_is_decoded_once(folder: Path, decodings: list[str]) -> None:
    first = load_real(folder)
    decodings.clear()
    steps: list[Any] = []
    assert_same(load_real(folder, on_read=lambda *step: steps.append(step)), first)
    assert (decodings, steps) == ([], [(24, 24)])
    spec = replace(first.spec, classes=first.spec.classes[::-1])
    assert_same(load_real(folder, spec), first.in_terms_of(spec))
    assert decodings == []


@pytest.mark.parametrize("change", ["age", "bytes", "name", "another", "size"])
def test_a_folder_that_changed_is_decoded_again(folder: Path, change: str, decodings: list[str]) -> None:
    load_real(folder)
    file = folder / "class0" / "0.png"
    if change == "age":
        os.utime(file, (1, 1))
    elif change == "bytes":
        kept = file.stat()
        Image.fromarray(DATA.images[1].permute(1, 2, 0).numpy()).save(file)
        with file.open("ab") as opened:
            opened.write(bytes(kept.st_size))
        os.utime(file, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    elif change == "name":
        file.rename(file.with_name("000.png"))
    elif change == "another":
        file.with_name("99.png").write_bytes(file.read_bytes())
    decodings.clear()
    size = 28 if change == "size" else None
    assert_same(load_real(folder, size=size), in_memory(folder, size=size))
    assert len(decodings) >= 48
    assert len(cached_images()) == 2


def test_what_was_noted_is_said_of_a_set_that_is_found_again(folder: Path, cache: Path) -> None:
    for label in ("class0", "class1"):
        Image.new("RGBA", (32, 32)).save(folder / label / "clear.png")
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"laid 2 images with transparent parts on white: .*class0/clear.png, "):
            load_real(folder)


def test_a_set_of_another_size_is_refused_when_it_is_found_again(folder: Path) -> None:
    load_real(folder)
    with pytest.raises(ValueError, match="32x32 pixels, but images must have 28, 64 pixels"):
        load_real(folder, sizes=(28, 64))


def test_two_readers_decode_once(folder: Path, decodings: list[str]) -> None:
    found: list[LabelledImages] = []
    threads = [threading.Thread(target=lambda: found.append(load_real(folder))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_same(found[0], found[1])
    assert len(set(decodings)) == 24
    assert len(decodings) <= 26  # each looks at the first one


# Cut short --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["folder", "npz"])
def test_a_killed_reading_goes_on_where_it_was(
    kind: str, folder: Path, npz: Path, decodings: list[str], cache: Path
) -> None:
    data = {"folder": folder, "npz": npz}[kind]
    code = (
        "import os, signal, sys\n"
        "from dim_data.images import load_real, pictures, stores\n"
        "pictures.BATCH, stores.SECONDS = 5, 0.0\n"
        "load_real(sys.argv[1], on_read=lambda done, count: done == 15 and os.kill(os.getpid(), signal.SIGKILL))"
    )
    run = subprocess.run([sys.executable, "-c", code, str(data)], check=False)
    assert run.returncode == -signal.SIGKILL
    assert [(found.count, found.finished) for found in cached_images()] == [(15, False)]
    steps: list[Any] = []
    mapped = load_real(data, on_read=lambda *step: steps.append(step))
    assert steps == [(15, 24), (20, 24), (24, 24)]
    assert len(decodings) == (10 if kind == "folder" else 0)  # with a look at the first one
    assert_same(mapped, in_memory(data))


def failing(at: int, error: Exception) -> Callable[..., None]:
    original = PictureStore.add

    def add(self: PictureStore, *args: Any) -> None:
        if self.done >= at:
            raise error
        original(self, *args)

    return add


def test_a_full_disk_keeps_what_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(PictureStore, "add", failing(10, OSError(errno.ENOSPC, "No space left on device")))
        with pytest.raises(
            OSError,
            match=f"photos {SENTENCE} .*: .*No space left on device; 10 of 24 images are kept there. Make room and run "
            "the same call again, or let DIM_DATA_CACHE name another folder",
        ):
            load_real(folder)
    steps: list[Any] = []
    assert_same(load_real(folder, on_read=lambda *step: steps.append(step)), in_memory(folder))
    assert steps[0] == (10, 24)


def test_too_small_a_disk_is_said_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch, decodings: list[str]) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 9000}))
    with pytest.raises(OSError, match=f"photos {SENTENCE} .*: 0.00 GB are needed, 0.00 GB are free. Make room"):
        load_real(folder)
    assert len(decodings) <= 6


def test_a_cache_that_cannot_be_written_is_said_at_once(
    folder: Path, cache: Path, decodings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.write_text("")
    with pytest.raises(OSError, match=f"photos {SENTENCE} .*cache: .*. Make room .*or let DIM_DATA_CACHE name another"):
        load_real(folder)
    with pytest.raises(OSError, match=f"items {SENTENCE}"):
        load_real(Items())
    assert len(decodings) <= 1


def test_a_source_that_changes_while_it_is_read_is_refused(folder: Path, cache: Path) -> None:
    def change(done: int, count: int | None) -> None:
        os.utime(folder / "class0" / "0.png", (done, done))

    with pytest.raises(ValueError, match=r"photos changed while it was read: read it again"):
        load_real(folder, on_read=change)
    assert cached_images() == []
    assert_same(load_real(folder), in_memory(folder))


@pytest.mark.parametrize("damage", ["about", "short", "labels", "version"])
def test_a_damaged_store_is_begun_anew(folder: Path, damage: str) -> None:
    load_real(folder)
    place = cached_images()[0].folder
    if damage == "about":
        (place / "about.json").write_text("{")
    elif damage == "short":
        os.truncate(place / "images-3.bin", 5000)
    elif damage == "labels":
        (place / "labels.jsonl").unlink()
    else:
        text = (place / "about.json").read_text()
        (place / "about.json").write_text(text.replace('"version": 1', '"version": 99'))
    assert_same(load_real(folder), in_memory(folder))


# The cache folder -------------------------------------------------------------------------------------


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("DIM_DATA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "dim_data"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "dim_data"
    assert cached_images() == []


def test_a_set_can_be_removed_while_it_is_used(folder: Path, cache: Path) -> None:
    mapped = load_real(folder)
    (cache / "notes").mkdir()
    (cache / "notes" / "mine.txt").write_text("mine")
    (found,) = cached_images()
    assert found.bytes > DATA.images.numel()
    assert found.source == str(folder)
    remove_cached(found.folder)
    assert [path.name for path in cache.iterdir()] == ["notes"]
    assert_same(mapped, in_memory(folder))


def test_a_set_that_is_being_read_is_not_removed(folder: Path) -> None:
    def remove(done: int, count: int | None) -> None:
        with pytest.raises(FileExistsError, match="another process is reading images into"):
            remove_cached(cached_images()[0].folder)

    assert_same(load_real(folder, on_read=remove), in_memory(folder))
