"""The cache of decoded pictures: the same pictures, each decoded once, by all workers together."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator

import pytest
import torch
from torch.utils.data import DataLoader

from dim_data.generator.model import Generator
from dim_data.loading import keeping
from dim_data.loading.cache import PictureCache
from dim_data.loading.dataset import DistilledDataset
from dim_data.loading.loader import DistilledLoader


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
        with pytest.raises(ValueError, match=r"a cache needs stored codes.*leave out cache=True"):
            build(tiny_noise, ipc=4, cache=True)


def test_labels_out_of_range_raise(tiny_codes: Generator) -> None:
    with pytest.raises(IndexError, match=r"labels must lie in \[0, 3\)"):
        PictureCache(tiny_codes).synthesize(torch.tensor([3]), torch.tensor([0]))


def test_too_little_shared_memory_is_said_before_it_kills(
    tiny_codes: Generator, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    monkeypatch.setattr(keeping, "SHARED", tmp_path)
    monkeypatch.setattr(keeping.os, "statvfs", lambda path: type("Stat", (), {"f_bavail": 9, "f_frsize": 4096}))
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
    monkeypatch.setattr(keeping, "SHARED", tmp_path / "none")
    assert len(DistilledDataset(tiny_codes, ipc=1, cache=True)) == 3
