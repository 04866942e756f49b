from __future__ import annotations

import copy
import itertools
import json
import pickle
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler

from dim_data.generator.model import Generator
from dim_data.loading import shares
from dim_data.loading.loader import DistilledLoader
from dim_data.loading.shares import Share, agree

IPC = 8
COUNT = 3 * IPC


def build(source: Generator, batch_size: int = 4, **options: Any) -> DistilledLoader:
    return DistilledLoader(source, batch_size, **{"ipc": IPC, "device": "cpu", "dtype": torch.uint8, **options})


def build_all(source: Generator, world_size: int, batch_size: int = 4, **options: Any) -> list[DistilledLoader]:
    return [build(source, batch_size, rank=rank, world_size=world_size, **options) for rank in range(world_size)]


def steps(ranks: list[DistilledLoader]) -> Iterator[tuple[Tensor, Tensor]]:
    """What all ranks together are handed out in each step of a pass, in the order of the ranks."""
    for batches in zip(*ranks, strict=True):
        assert len({len(labels) for _, labels in batches}) == 1
        yield torch.cat([images for images, _ in batches]), torch.cat([labels for _, labels in batches])


def same(one: Any, other: Any) -> bool:
    return all(torch.equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True))


def values(batches: Any) -> list[tuple[int, bytes]]:
    return sorted(
        (int(y), x.numpy().tobytes()) for images, labels in batches for x, y in zip(images, labels, strict=True)
    )


# Epochs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(("world_size", "batch_size"), [(1, 5), (2, 5), (2, 24), (3, 4), (4, 4), (24, 2)])
def test_ranks_together_make_the_batches_of_one_process(
    tiny_noise: Generator, world_size: int, batch_size: int, shuffle: bool
) -> None:
    alone = build(tiny_noise, batch_size * world_size, shuffle=shuffle)
    ranks = build_all(tiny_noise, world_size, batch_size, shuffle=shuffle)
    assert {len(loader) for loader in ranks} == {len(alone)}
    for epoch in range(2):
        together, wanted = list(steps(ranks)), list(alone)
        assert same(together, wanted)
        assert {loader.epoch for loader in ranks} == {epoch}
        assert len(values(together)) == COUNT


@pytest.mark.parametrize(("world_size", "batch_size", "batches"), [(5, 2, 2), (5, 4, 1), (2, 5, 2), (7, 1, 3)])
def test_ranks_leave_out_what_is_not_full_for_each(
    tiny_noise: Generator, world_size: int, batch_size: int, batches: int
) -> None:
    ranks = build_all(tiny_noise, world_size, batch_size, drop_last=True)
    assert [len(loader) for loader in ranks] == [batches] * world_size
    alone = build(tiny_noise, batch_size * world_size, drop_last=True)
    for _ in range(2):
        assert same(steps(ranks), alone)


def test_what_cannot_be_shared_out_equally_raises(tiny_noise: Generator) -> None:
    sentence = (
        r"24 pictures cannot be shared out equally to 5 ranks: choose ipc .* a multiple of 5, or .* drop_last=True"
    )
    with pytest.raises(ValueError, match=sentence):
        build(tiny_noise, rank=0, world_size=5)
    with pytest.raises(ValueError, match="24 pictures cannot be shared out equally to 48 ranks"):
        build(tiny_noise, rank=0, world_size=48)
    sentence = "an epoch of 24 pictures has no full batch of 13 for each of 2 ranks, and drop_last=True leaves out the"
    with pytest.raises(ValueError, match=sentence):
        build(tiny_noise, 13, rank=1, world_size=2, drop_last=True)


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"rank": 0}, ValueError, "rank and world_size go together, got rank=0 and world_size=None"),
        ({"world_size": 2}, ValueError, "rank and world_size go together, got rank=None and world_size=2"),
        ({"rank": 2, "world_size": 2}, ValueError, "rank must be at most 1, got 2"),
        ({"rank": -1, "world_size": 2}, ValueError, "rank must be at least 0, got -1"),
        ({"rank": 0, "world_size": 0}, ValueError, "world_size must be at least 1, got 0"),
        ({"rank": "0", "world_size": 2}, TypeError, "rank must be an int, got '0'"),
        ({"rank": 0, "world_size": 2.0}, TypeError, r"world_size must be an int, got 2\.0"),
    ],
)
def test_bad_ranks_raise(tiny_noise: Generator, options: dict[str, Any], error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        build(tiny_noise, **options)


def test_memory_of_a_rank_does_not_grow_with_ipc(tiny_noise: Generator) -> None:
    ranks = build_all(tiny_noise, 3, ipc=10**12)
    alone = build(tiny_noise, 12, ipc=10**12)
    assert {len(loader) for loader in ranks} == {10**12 // 4}
    assert same([next(steps(ranks))], [next(iter(alone))])
    assert len(list(itertools.islice(ranks[1].sampler, 5))) == 5


# Passes ----------------------------------------------------------------------------------------------


def test_a_pass_begins_with_its_first_batch(tiny_noise: Generator) -> None:
    loader, alone = build(tiny_noise), build(tiny_noise)
    iter(loader)  # Lightning looks whether it can be iterated over
    waiting = iter(loader)
    assert same(loader, alone)
    assert same(waiting, alone)
    assert loader.epoch == 1


def test_a_state_may_come_between_iter_and_the_first_batch(tiny_noise: Generator) -> None:
    loader, other = build(tiny_noise), build(tiny_noise)
    waiting = iter(loader)
    other.set_epoch(5)
    batches = iter(other)
    next(batches)
    loader.load_state_dict(other.state_dict())
    assert same(waiting, batches)


def test_setting_the_epoch_of_a_loaded_state_keeps_its_place(tiny_noise: Generator) -> None:
    loader = build(tiny_noise)
    loader.set_epoch(3)
    batches = iter(loader)
    next(batches)
    state = loader.state_dict()
    rest = list(batches)
    for told in (lambda loader: loader.set_epoch(3), lambda loader: loader.sampler.set_epoch(3)):
        resumed = build(tiny_noise)
        resumed.load_state_dict(state)
        told(resumed)
        assert same(resumed, rest)
        told(resumed)
        assert len(list(resumed)) == 6
    resumed.load_state_dict(state)
    resumed.set_epoch(4)
    assert resumed.state_dict()["batch"] == 0


def test_the_samplers_epoch_is_that_of_the_loader(tiny_noise: Generator) -> None:
    loader = build(tiny_noise)
    for epoch in (4, 4, 2):
        loader.sampler.set_epoch(epoch)
        list(loader)
        assert loader.epoch == loader.sampler.epoch == epoch
    list(loader)
    assert loader.epoch == 3
    with pytest.raises(ValueError, match="epoch must be at least 0, got -1"):
        loader.sampler.set_epoch(-1)


@pytest.mark.parametrize("loaded", [True, False])
def test_who_counts_from_0_goes_on_from_what_was_chosen(tiny_noise: Generator, loaded: bool) -> None:
    loader = build(tiny_noise)
    if loaded:
        loader.load_state_dict({**loader.state_dict(), "epoch": 7, "batch": 4})
    else:
        loader.set_epoch(7)
    sizes, epochs = [], []
    for passes in range(3):
        loader.sampler.set_epoch(passes)
        sizes.append(len(list(loader)))
        epochs.append(loader.epoch)
    assert epochs == [7, 8, 9]
    assert sizes == [2 if loaded else 6, 6, 6]
    loader.set_epoch(1)
    loader.sampler.set_epoch(9)
    assert loader.epoch == 1
    list(loader)
    loader.sampler.set_epoch(0)
    assert loader.epoch == 0


# States ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("done", [0, 1, 3])
@pytest.mark.parametrize(("ranks", "size"), [(1, 4), (1, 8), (4, 4), (4, 2)])
def test_a_state_is_taken_up_at_another_number_of_ranks(
    tiny_noise: Generator, ranks: int, size: int, done: int, shuffle: bool
) -> None:
    saved = build_all(tiny_noise, 2, 4, shuffle=shuffle)
    alone = build(tiny_noise, 8, shuffle=shuffle)
    for loader in (*saved, alone):
        loader.set_epoch(1)
    pairs, wanted = steps(saved), iter(alone)
    for _ in range(done):
        next(pairs)
        next(wanted)
    states = [json.loads(json.dumps(loader.state_dict())) for loader in saved]
    assert states[0] == states[1]
    others = build_all(tiny_noise, ranks, size, shuffle=shuffle)
    for loader in others:
        loader.load_state_dict(states[0])
        assert loader.epoch == 1 + (done == 3)
    rest = list(steps(others))
    assert values(rest) == (values(wanted) if 0 < done < 3 else values(rest))
    assert len(values(rest)) == (COUNT - 8 * done if done < 3 else COUNT)
    assert values(steps(others)) == values(_epoch(tiny_noise, 2 + (done == 3)))


def _epoch(source: Generator, epoch: int) -> DistilledLoader:
    loader = build(source)
    loader.set_epoch(epoch)
    return loader


def test_a_state_may_change_ranks_twice_in_a_pass(tiny_noise: Generator) -> None:
    seen: list[Any] = []
    state, sizes = build(tiny_noise, 2).state_dict(), []
    for world_size, count in [(2, 1), (4, 1), (4, 0), (1, 3), (6, 9)]:
        ranks = build_all(tiny_noise, world_size, 2)
        for loader in ranks:
            loader.load_state_dict(json.loads(json.dumps(state)))
        seen.extend(itertools.islice(steps(ranks), count))
        state = ranks[0].state_dict()
        sizes.append(len(values(seen)))
    assert sizes == [4, 12, 12, 18, COUNT]
    assert values(seen) == values(_epoch(tiny_noise, 0))


def test_a_rest_that_cannot_be_shared_out_equally_raises(tiny_noise: Generator) -> None:
    saved = build(tiny_noise, 1)
    next(iter(saved))
    loader = build(tiny_noise, 1, rank=0, world_size=3)
    loader.load_state_dict(saved.state_dict())
    with pytest.raises(ValueError, match=r"23 pictures cannot be .* to 3 ranks: .* be left by set_epoch\(epoch \+ 1\)"):
        next(iter(loader))
    loader.set_epoch(1)
    assert len(list(loader)) == 8


def test_a_rest_without_a_full_batch_is_no_pass(tiny_noise: Generator) -> None:
    saved = build(tiny_noise, 2)
    for _ in itertools.islice(saved, 10):
        state = saved.state_dict()
    loader = build(tiny_noise, 2, rank=0, world_size=3, drop_last=True)
    loader.load_state_dict(state)
    assert loader.epoch == 1
    assert len(list(loader)) == 4


def test_a_state_of_one_process_is_as_it_ever_was(tiny_noise: Generator) -> None:
    loader = build(tiny_noise, rank=0, world_size=1)
    next(iter(loader))
    settings = {"batch_size": 4, "ipc": IPC, "seed": 0, "shuffle": True}
    assert loader.state_dict() == {"settings": settings, "epoch": 0, "batch": 1}
    assert build(tiny_noise, rank=0, world_size=2).state_dict() == {
        "settings": settings,
        "epoch": 0,
        "batch": 0,
        "world_size": 2,
    }


@pytest.mark.parametrize("batch_size", [2, 6, 16])
def test_a_state_of_other_batches_raises(tiny_noise: Generator, batch_size: int) -> None:
    state = build(tiny_noise, 4, rank=1, world_size=2).state_dict()
    with pytest.raises(ValueError, match=f"saved with batch_size=4, but here batch_size={batch_size}"):
        build(tiny_noise, batch_size).load_state_dict(state)


@pytest.mark.parametrize("change", [{"world_size": 0}, {"place": -1}, {"world_size": "2"}, {"place": 1.0}])
def test_bad_places_raise_and_change_nothing(tiny_noise: Generator, change: dict[str, Any]) -> None:
    loader = build(tiny_noise)
    next(iter(loader))
    state = loader.state_dict()
    with pytest.raises((TypeError, ValueError), match=f"{next(iter(change))} must be"):
        loader.load_state_dict({**state, **change})
    assert loader.state_dict() == state


# What frameworks read --------------------------------------------------------------------------------


def test_a_loader_is_a_data_loader(tiny_codes: Generator) -> None:
    loader = build(tiny_codes, 5, drop_last=True)
    assert isinstance(loader, DataLoader)
    assert (loader.batch_size, loader.drop_last, loader.num_workers, loader.pin_memory) == (5, True, 0, False)
    assert isinstance(loader.sampler, DistributedSampler)
    assert (len(loader.dataset), loader.dataset.classes) == (COUNT, list(tiny_codes.spec.classes))
    assert loader.dataset.class_to_idx == {"class0": 0, "class1": 1, "class2": 2}
    assert loader.dataset.targets == [0, 1, 2] * IPC
    assert (loader.sampler.rank, loader.sampler.num_replicas, loader.sampler.total_size) == (0, 1, 20)
    assert len(loader.batch_sampler) == len(loader) == 4
    assert loader.generator is tiny_codes


@pytest.mark.parametrize("options", [{}, {"dtype": torch.float32}, {"drop_last": True}, {"rank": 1, "world_size": 2}])
@pytest.mark.parametrize("kind", ["tiny_noise", "tiny_codes"])
def test_its_parts_make_the_batches_of_its_epoch(
    kind: str, options: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    loader = build(request.getfixturevalue(kind), 5, **options)
    for _ in range(2):
        batches = list(loader)
        assert same(DataLoader(loader.dataset, batch_sampler=loader.batch_sampler), batches)


def test_its_pictures_have_its_soft_labels(tiny_codes: Generator) -> None:
    latents, labels = torch.rand(30, *tiny_codes.decoder.latent_shape) * 2 - 1, torch.arange(30) % 3
    soft = tiny_codes.store(latents, labels, torch.rand(30, 3).softmax(1)).eval()
    loader = build(soft, 5, soft_labels=0.5, cache=True)
    batches = list(loader)
    assert batches[0][1].dtype == torch.float32
    assert same(DataLoader(loader.dataset, batch_sampler=loader.batch_sampler), batches)


@pytest.mark.parametrize("index", [COUNT, -COUNT - 1])
def test_there_are_no_pictures_past_the_ends(tiny_noise: Generator, index: int) -> None:
    pictures = build(tiny_noise).dataset
    assert torch.equal(pictures[-1][0], pictures[COUNT - 1][0])
    with pytest.raises(IndexError, match=f"index {index} is out of range: this loader has 24 pictures in an epoch"):
        pictures[index]


@pytest.mark.parametrize("name", ["ipc", "seed", "shuffle", "soft_labels", "dtype", "batch_size", "sampler"])
def test_what_a_loader_was_made_with_stays(tiny_noise: Generator, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        setattr(build(tiny_noise), name, 1)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda loader: pickle.loads(pickle.dumps(loader))])
def test_a_copy_goes_its_own_way(tiny_noise: Generator, duplicate: Any) -> None:
    loader, alone = build(tiny_noise), build(tiny_noise)
    next(iter(loader))
    next(iter(alone))
    other = duplicate(loader)
    wanted = list(alone)
    assert same(other, wanted)
    assert (other.epoch, other.sampler.epoch, loader.epoch) == (1, 1, 0)
    assert same(loader, wanted)


# Agreement -------------------------------------------------------------------------------------------

GIVEN = {"seed": 0, "ipc": 8, "epoch": 0}


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> dist.Store:
    store = dist.HashStore()
    monkeypatch.setattr(dist.distributed_c10d, "_get_default_store", lambda: store)
    monkeypatch.setattr(shares, "PATIENCE", 0.05)
    return store


def test_ranks_that_agree_wait_for_nobody(store: dist.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for rank in range(3):
        agree(GIVEN, Share(rank, 3))
    monkeypatch.setattr(shares, "PATIENCE", 60)
    began = time.monotonic()
    agree(GIVEN, Share(0, 3))
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"seed": 1}, "rank 1 has seed=1 and rank 2 has seed=0: give every rank the same"),
        ({"seed": 3, "ipc": 9}, "rank 1 has seed=3, ipc=9 and rank 2 has seed=0, ipc=8: give every rank the same"),
        ({"epoch": 4}, r"has epoch=4 and .* load a state on every rank\), or give rank=0, world_size=1"),
    ],
)
def test_ranks_that_were_given_different_things_raise(store: dist.Store, change: Any, sentence: str) -> None:
    agree(GIVEN, Share(0, 3))
    with pytest.raises(ValueError, match=r"rank 0 has .* and rank 1 has"):
        agree({**GIVEN, **change}, Share(1, 3))
    with pytest.raises(ValueError, match=sentence):
        agree(GIVEN, Share(2, 3))


def test_a_rank_that_is_only_behind_is_no_difference(store: dist.Store) -> None:
    agree(GIVEN, Share(0, 2))
    agree(GIVEN, Share(1, 2))
    agree({**GIVEN, "ipc": 9}, Share(0, 2))
