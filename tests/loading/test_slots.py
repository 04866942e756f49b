"""An epoch's pictures that are kept for the next: the same pictures, most of them made once."""

from __future__ import annotations

import copy
import json
import os
import pickle
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from dim_data.generator.model import Generator
from dim_data.loading import choosing
from dim_data.loading.dataset import DistilledDataset
from dim_data.loading.loader import DistilledLoader
from dim_data.loading.slots import SlotCache
from dim_data.networks import ConvNet

IPC = 20
OPTIONS: dict[str, Any] = {"ipc": IPC, "device": "cpu", "refresh": 0.1}
Shown = list[tuple[bytes, int]]


@pytest.fixture
def painted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Label and serial of every picture that a generator made in this process."""
    made: list[tuple[int, int]] = []
    original = Generator.synthesize

    def synthesize(self: Generator, labels: torch.Tensor, serials: torch.Tensor, seed: int = 0) -> torch.Tensor:
        made.extend(zip(labels.tolist(), serials.tolist(), strict=True))
        return original(self, labels, serials, seed)

    monkeypatch.setattr(Generator, "synthesize", synthesize)
    return made


@pytest.fixture(scope="module")
def tiny_taught(tiny_codes: Generator) -> Generator:
    """Noise with a teacher beside it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return tiny_codes.forget_codes(4, ConvNet(tiny_codes.spec))


def shown(batches: Any) -> Shown:
    return sorted((x.numpy().tobytes(), y.numpy().tobytes()) for batch in batches for x, y in zip(*batch, strict=True))


@pytest.mark.parametrize("soft", [False, 0.5])
def test_pictures_are_the_generators_own_and_made_once(
    tiny_taught: Generator, soft: bool | float, painted: list[tuple[int, int]]
) -> None:
    kept, plain = (DistilledLoader(tiny_taught, 16, cache=c, soft_labels=soft, **OPTIONS) for c in ("auto", False))
    for epoch in range(12):
        painted.clear()
        found = shown(kept)
        assert len(painted) == len(set(painted)) == (6 if epoch else 60)
        assert found == shown(plain)


@pytest.mark.parametrize("source", ["tiny_noise", "tiny_shaped", "tiny_prior"])
def test_dataset_and_loader_show_the_same(source: str, request: pytest.FixtureRequest, device: torch.device) -> None:
    generator = request.getfixturevalue(source)
    options = {**OPTIONS, "device": device, "seed": 5}
    dataset = DistilledDataset(generator, **options)
    loader = DistilledLoader(generator, 7, dtype=torch.uint8, shuffle=False, **options)
    seen: list[bytes] = []
    for epoch in range(4):
        images = torch.cat([images for images, _ in loader]).cpu()
        dataset.set_epoch(epoch)
        items = [dataset[index][0].tobytes() for index in range(len(dataset))]
        assert items == [image.permute(1, 2, 0).contiguous().numpy().tobytes() for image in images]
        assert items == [image.tobytes() for image, _ in dataset.read(range(60))]
        assert torch.equal(loader.dataset[-1][0].cpu(), images[-1])
        assert len(set(items) - set(seen)) == (6 if epoch else 60)
        seen = items


@pytest.mark.parametrize(("workers", "context"), [(2, "fork"), (2, "spawn")])
def test_workers_show_the_same_in_every_pass(tiny_noise: Generator, workers: int, context: str) -> None:
    kept, plain = (DistilledDataset(tiny_noise, cache=cache, **OPTIONS) for cache in ("auto", False))
    options = {"multiprocessing_context": context, "persistent_workers": True, "collate_fn": list}
    loader = DataLoader(kept, 8, num_workers=workers, **options)
    for epoch in range(3):
        plain.set_epoch(epoch)
        wanted = [image.tobytes() for image, _ in plain.read(range(60))]
        assert [image.tobytes() for batch in loader for image, _ in batch] == wanted


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes are forked here")
def test_what_workers_make_this_process_need_not_make(tiny_noise: Generator, painted: list[tuple[int, int]]) -> None:
    dataset = DistilledDataset(tiny_noise, **OPTIONS)
    loader = DataLoader(dataset, 8, num_workers=1, multiprocessing_context="fork", collate_fn=list)
    assert len(list(loader)) == 8
    dataset.set_epoch(1)
    dataset.read(range(60))
    assert len(painted) == 6


def test_a_row_that_two_wrote_at_once_is_painted_again(tiny_noise: Generator) -> None:
    cache = SlotCache(tiny_noise, IPC)
    labels, serials = torch.arange(9) % 3, torch.arange(9) // 3
    wanted = cache.synthesize(labels, serials)
    assert torch.equal(wanted, tiny_noise.synthesize(labels, serials))
    memory = cache._memory
    assert memory is not None
    memory.rows[4, :100] = 7
    memory.rows[[0, 1]] = memory.rows[[1, 0]]
    assert torch.equal(cache.synthesize(labels, serials), wanted)


def test_others_of_one_place_do_not_mix(tiny_noise: Generator, painted: list[tuple[int, int]]) -> None:
    cache = SlotCache(tiny_noise, 4)
    labels = torch.tensor([0, 0, 0, 1, 0])
    serials = torch.tensor([1, 5, 9, 1, 5])  # three of one place, one of them twice
    for seed in (0, 3, 0):
        found = cache.synthesize(labels, serials, seed)
        assert len(painted) == len(set(painted)) <= 4
        assert torch.equal(found, tiny_noise.synthesize(labels, serials, seed))
        painted.clear()


def test_a_state_goes_on_with_the_same_pictures(tiny_noise: Generator) -> None:
    loader, whole = (DistilledLoader(tiny_noise, 16, **OPTIONS) for _ in range(2))
    wanted = [list(whole) for _ in range(4)]
    list(loader)
    batches = iter(loader)
    next(batches)
    state = json.loads(json.dumps(loader.state_dict()))
    assert state["settings"]["refresh"] == 0.1
    resumed = DistilledLoader(tiny_noise, 16, **OPTIONS)
    resumed.load_state_dict(state)
    for found, expected in zip([*resumed, *resumed], [*wanted[1][1:], *wanted[2]], strict=True):
        assert all(torch.equal(x, y) for x, y in zip(found, expected, strict=True))
    sentence = r"saved with refresh=0\.1, but here refresh=1\.0"
    for build, saved in (
        (DistilledLoader, state),
        (DistilledDataset, DistilledDataset(tiny_noise, **OPTIONS).state_dict()),
    ):
        other = build(tiny_noise, **({"batch_size": 16} if build is DistilledLoader else {}), ipc=IPC, device="cpu")
        with pytest.raises(ValueError, match=sentence):
            other.load_state_dict(saved)
        older = other.state_dict()
        assert "refresh" not in older["settings"]
        other.load_state_dict(older)
        with pytest.raises(ValueError, match=r"saved with refresh=1\.0, but here refresh=0\.1"):
            (resumed if build is DistilledLoader else DistilledDataset(tiny_noise, **OPTIONS)).load_state_dict(older)


def test_ranks_share_a_renewed_epoch(tiny_noise: Generator) -> None:
    whole = DistilledLoader(tiny_noise, 16, **OPTIONS)
    ranks = [DistilledLoader(tiny_noise, 8, rank=rank, world_size=2, **OPTIONS) for rank in range(2)]
    for _ in range(3):
        assert shown(whole) == sorted([*shown(ranks[0]), *shown(ranks[1])])


def test_a_fixed_set_from_noise_is_made_once(tiny_noise: Generator, painted: list[tuple[int, int]]) -> None:
    dataset = DistilledDataset(tiny_noise, ipc=IPC, fixed=True)
    first = [image.tobytes() for image, _ in dataset.read(range(60))]
    assert len(painted) == 60
    assert [image.tobytes() for image, _ in dataset.read(range(60))] == first
    assert [dataset[index][0].tobytes() for index in range(60)] == first
    assert len(painted) == 60


def test_the_parts_of_a_split_are_renewed_and_fixed(tiny_noise: Generator) -> None:
    train, validation = DistilledDataset(tiny_noise, **OPTIONS).split(0.5)
    assert (train.refresh, validation.refresh, validation.fixed) == (0.1, 1.0, True)
    passes = [{image.tobytes() for image, _ in train.read(range(30))} for _ in range(2)]
    assert len(passes[1] - passes[0]) == 3


def test_without_room_pictures_are_the_same(
    tiny_noise: Generator, monkeypatch: pytest.MonkeyPatch, painted: list[tuple[int, int]]
) -> None:
    kept = DistilledLoader(tiny_noise, 16, cache=True, **OPTIONS)
    monkeypatch.setattr(choosing, "LIMIT", 60 * 784 - 1)
    without, forced = (DistilledLoader(tiny_noise, 16, cache=cache, **OPTIONS) for cache in ("auto", True))
    assert without.dataset.painter is tiny_noise
    assert isinstance(forced.dataset.painter, SlotCache)
    for _ in range(2):
        painted.clear()
        wanted = shown(kept)
        painted.clear()
        assert shown(without) == wanted
        assert len(painted) == 60


def test_pickles_and_copies_are_small_and_show_the_same(tiny_noise: Generator) -> None:
    dataset = DistilledDataset(tiny_noise, **OPTIONS)
    empty = len(pickle.dumps(dataset))
    dataset.set_epoch(2)
    wanted = [image.tobytes() for image, _ in dataset.read(range(60))]
    content = pickle.dumps(dataset)
    assert abs(len(content) - empty) < 1000
    for other in (pickle.loads(content), copy.deepcopy(dataset), copy.copy(dataset)):
        assert [image.tobytes() for image, _ in other.read(range(60))] == wanted
