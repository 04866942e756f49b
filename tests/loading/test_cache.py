"""The cache of decoded pictures: the same pictures, each decoded once, by all workers together."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from dim_data.generator.model import Generator
from dim_data.loading import choosing, keeping, memory
from dim_data.loading.cache import PictureCache
from dim_data.loading.dataset import DistilledDataset
from dim_data.loading.loader import DistilledLoader
from dim_data.loading.slots import SlotCache


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Every row that was decoded in this process, in order."""
    rows: list[int] = []
    original = Generator.decode

    def decode(self: Generator, wanted: torch.Tensor, batch_size: int = 1024) -> torch.Tensor:
        rows.extend(wanted.tolist())
        return original(self, wanted, batch_size)

    monkeypatch.setattr(Generator, "decode", decode)
    return rows


def test_cached_pictures_are_the_generators_own(
    tiny_codes: Generator, decoded: list[int], device: torch.device
) -> None:
    generator = copy.deepcopy(tiny_codes).to(device)
    cached = PictureCache(generator)
    labels, serials = torch.arange(90) % 3, torch.arange(90) // 3
    for seed in (0, 1):
        for part in (slice(0, 7), slice(3, 90), slice(0, 0)):
            arguments = (labels[part], serials[part], seed)
            assert torch.equal(cached.synthesize(*arguments), generator.synthesize(*arguments))
    assert len(decoded) == len(set(decoded)) > 60


def test_what_a_caller_does_to_a_picture_stays_there(tiny_codes: Generator) -> None:
    cached = PictureCache(tiny_codes)
    labels, serials = torch.arange(6) % 3, torch.arange(6)
    wanted = tiny_codes.synthesize(labels, serials)
    for _ in range(3):
        images = cached.synthesize(labels, serials)
        assert torch.equal(images, wanted)
        images.zero_()


def test_a_loader_with_a_cache_decodes_each_code_once(tiny_codes: Generator, decoded: list[int]) -> None:
    options = {"ipc": 40, "device": "cpu", "seed": 3}
    plain, cached = (DistilledLoader(tiny_codes, 32, cache=flag, **options) for flag in (False, True))
    wanted = [list(plain) for _ in range(3)]
    decoded.clear()
    for epoch in range(3):
        for (x, y), (u, v) in zip(wanted[epoch], cached, strict=True):
            assert torch.equal(x, u)
            assert torch.equal(y, v)
        assert sorted(decoded) == list(range(120)), f"after epoch {epoch}"


@pytest.mark.parametrize(("workers", "context"), [(0, None), (2, "fork"), (2, "spawn")])
def test_a_dataset_with_a_cache_hands_out_the_same_pictures(
    tiny_codes: Generator, workers: int, context: str | None
) -> None:
    plain, cached = (DistilledDataset(tiny_codes, ipc=40, cache=flag) for flag in (False, True))
    loader = DataLoader(
        cached,
        24,
        num_workers=workers,
        collate_fn=list,
        multiprocessing_context=context,
        persistent_workers=workers > 0,
    )
    for epoch in range(2):
        plain.set_epoch(epoch)
        images = [image.tobytes() for batch in loader for image, _ in batch]
        assert images == [plain[i][0].tobytes() for i in range(len(plain))]
    assert bool(cached._painter._memory.marks.all()), "what workers decode, this process knows too"


def test_a_pickle_keeps_every_picture(tiny_codes: Generator) -> None:
    dataset = DistilledDataset(tiny_codes, ipc=4, cache=True)
    dataset.set_epoch(0)
    wanted = dataset.data
    for other in (pickle.loads(pickle.dumps(dataset)), copy.deepcopy(dataset)):
        assert (other.data == wanted).all()
        assert other._painter._memory.rows.data_ptr() != dataset._painter._memory.rows.data_ptr()


def test_noise_has_nothing_to_cache(tiny_noise: Generator) -> None:
    for build in (DistilledDataset, DistilledLoader):
        with pytest.raises(ValueError, match=r"a cache needs stored codes.*leave out cache=True.*refresh=0\.1.*fixed"):
            build(tiny_noise, ipc=4, cache=True)
        with pytest.raises(ValueError, match="cache must be 'auto', True or False, got 'always'"):
            build(tiny_noise, ipc=4, cache="always")


BANK = 120 * 3 * 32 * 32


@pytest.mark.parametrize(
    ("kind", "options", "room", "wanted"),
    [
        ("codes", {}, BANK, PictureCache),
        ("codes", {}, BANK - 1, Generator),
        ("codes", {"cache": True}, BANK - 1, PictureCache),
        ("codes", {"cache": False}, BANK, Generator),
        ("codes", {"fixed": True}, BANK - 1, SlotCache),
        ("codes", {"fixed": True}, BANK, PictureCache),
        ("noise", {}, BANK, Generator),
        ("noise", {"fixed": True}, 6 * 784, SlotCache),
        ("noise", {"fixed": True}, 6 * 784 - 1, Generator),
        ("noise", {"fixed": True, "cache": True}, 6 * 784 - 1, SlotCache),
    ],
)
def test_what_fits_is_kept_without_being_told(
    kind: str,
    options: dict[str, Any],
    room: int,
    wanted: type,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(choosing, "LIMIT", room)
    generator = request.getfixturevalue(f"tiny_{kind}")
    dataset = DistilledDataset(generator, ipc=2, **options)
    assert type(dataset._painter) is wanted
    if "fixed" not in options:
        assert type(DistilledLoader(generator, ipc=2, device="cpu", **options).dataset.painter) is wanted
    dataset.set_epoch(0)
    plain = DistilledDataset(generator, ipc=2, cache=False)
    plain.set_epoch(0)
    for _ in range(2):
        assert [x.tobytes() for x, _ in dataset.read(range(6))] == [x.tobytes() for x, _ in plain.read(range(6))]


def test_a_set_that_nobody_asks_takes_no_memory() -> None:
    script = """
import re
from dim_data import DistilledDataset, DistilledLoader
def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024
first = DistilledDataset("cifar10")
first.read(range(16))
before = resident()
sets = [DistilledDataset(first.generator) for _ in range(4)] + [DistilledLoader(first.generator, device="cpu")]
for one in sets[:2]:
    one.read(range(16))
print(resident() - before)
"""
    if not Path("/proc/self/status").exists():
        pytest.skip("the memory of a process is not told here")
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 20_000_000, "five times 154 MB are address space alone"


def test_a_weight_that_changes_is_seen(tiny_codes: Generator, decoded: list[int]) -> None:
    generator = copy.deepcopy(tiny_codes)
    for cached in (PictureCache(generator), PictureCache(generator, shared=True), SlotCache(generator, 40)):
        for change in (lambda p: None, lambda p: p.mul_(1.1), lambda p: p.add_(0.05)):
            with torch.no_grad():
                change(next(generator.decoder.parameters()))
            for _ in range(2):
                found = cached.synthesize(torch.arange(30) % 3, torch.arange(30) // 3)
                assert torch.equal(found, generator.synthesize(torch.arange(30) % 3, torch.arange(30) // 3))
        decoded.clear()
        cached.synthesize(torch.arange(30) % 3, torch.arange(30) // 3)
        assert decoded == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes are forked here")
def test_a_process_that_changes_a_weight_keeps_its_pictures_to_itself(tiny_codes: Generator) -> None:
    generator = copy.deepcopy(tiny_codes)
    cached = PictureCache(generator, shared=True)
    arguments = torch.arange(120) % 3, torch.arange(120) // 3
    child = os.fork()
    if not child:
        with torch.no_grad():
            next(generator.decoder.parameters()).mul_(1.5)
        cached.synthesize(*arguments)
        os._exit(0)
    os.waitpid(child, 0)
    assert torch.equal(cached.synthesize(*arguments), generator.synthesize(*arguments))


def test_a_spawned_worker_does_without_where_room_is_scarce(
    tiny_codes: Generator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory, "SHARED", tmp_path)
    monkeypatch.setattr(keeping, "SHARED", tmp_path)
    monkeypatch.setattr(keeping, "is_spawning", lambda: True)
    handed: list[int] = []
    monkeypatch.setattr(keeping, "share_memory", lambda *tensors: handed.append(len(tensors)))
    marks = len(tiny_codes.bank)
    for free, wanted in ((4 * (BANK + marks), True), (4 * (BANK + marks) - 1, False)):
        stat = type("Stat", (), {"f_bavail": free, "f_frsize": 1})
        monkeypatch.setattr(memory.os, "statvfs", lambda path, stat=stat: stat)
        cached = PictureCache(tiny_codes, shared=True, optional=True)
        handed.clear()
        state = cached.__getstate__()
        assert bool(handed) == wanted
        assert (state["_memory"] is not None) == wanted
        there = PictureCache.__new__(PictureCache)
        there.__setstate__(state)
        arguments = torch.arange(9) % 3, torch.arange(9)
        assert torch.equal(there.synthesize(*arguments), tiny_codes.synthesize(*arguments))
        assert (there._kept() is not None) == wanted
        assert cached._kept() is not None, "those that were forked keep theirs"


def test_memory_that_is_not_to_be_had_is_done_without(tiny_codes: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*shape: int, dtype: torch.dtype) -> torch.Tensor:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(keeping, "shared_zeros", fail)
    with pytest.raises(OSError, match="Cannot allocate memory"):
        PictureCache(tiny_codes, shared=True)
    cached = PictureCache(tiny_codes, shared=True, optional=True)
    arguments = torch.arange(9) % 3, torch.arange(9)
    assert torch.equal(cached.synthesize(*arguments), tiny_codes.synthesize(*arguments))


def test_labels_out_of_range_raise(tiny_codes: Generator) -> None:
    with pytest.raises(IndexError, match=r"labels must lie in \[0, 3\)"):
        PictureCache(tiny_codes).synthesize(torch.tensor([3]), torch.tensor([0]))


def test_too_little_shared_memory_is_said_before_it_kills(
    tiny_codes: Generator, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    monkeypatch.setattr(memory, "SHARED", tmp_path)
    monkeypatch.setattr(keeping, "SHARED", tmp_path)
    monkeypatch.setattr(memory.os, "statvfs", lambda path: type("Stat", (), {"f_bavail": 9, "f_frsize": 4096}))
    dataset = DistilledDataset(tiny_codes, ipc=4, cache=True, transform=lambda image: 0)
    for options in ({}, {"num_workers": 1, "multiprocessing_context": "fork"}):
        assert len(list(DataLoader(dataset, 12, **options))) == 1  # what is not spawned needs none of it
    spawned = DataLoader(dataset, 12, num_workers=1, multiprocessing_context="spawn")
    dataset.transform = None
    sentence = r"cache=True needs 0 MB of shared memory in workers that are spawned, and .* has 0 MB left: enlarge it"
    with pytest.raises(MemoryError, match=sentence):
        iter(spawned)


def test_a_system_without_a_folder_of_shared_memory_is_not_asked(
    tiny_codes: Generator, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    monkeypatch.setattr(memory, "SHARED", tmp_path / "none")
    assert len(DistilledDataset(tiny_codes, ipc=1, cache=True)) == 3
