"""Ranks of a process group that share out a data set's indices: new pictures in each pass, whatever the batches."""

from __future__ import annotations

import pytest
import torch.distributed as dist
from torch.utils.data import DistributedSampler

from dim_data.loading.passes import Passes


@pytest.mark.parametrize("batch_size", [1, 2, 4])
@pytest.mark.parametrize("seed", range(6))
def test_no_picture_comes_twice(batch_size: int, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda group=None: 2)
    length, passes, drawn = 24, 4, []
    for rank in range(2):
        sampler, memory = DistributedSampler(range(length), 2, rank, seed=seed), Passes(length)
        for epoch in range(passes):
            sampler.set_epoch(epoch)
            indices = list(sampler)
            for start in range(0, len(indices), batch_size):
                some = indices[start : start + batch_size]
                drawn += zip(some, memory.advance(some), strict=True)
    assert sorted(set(drawn)) == sorted(drawn)
    assert {epoch for _, epoch in drawn} == set(range(passes))


@pytest.mark.parametrize(
    ("length", "ranks", "batch_size", "looks", "drop_last"),
    [(96, 4, 6, 1, False), (96, 4, 8, 1, False), (100, 4, 16, 0, True), (500, 8, 32, 0, True), (96, 4, 7, 0, True)],
)
def test_nor_after_a_look_of_all_ranks_or_passes_that_leave_the_end_out(
    length: int, ranks: int, batch_size: int, looks: int, drop_last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda group=None: ranks)
    drawn: list[tuple[int, int]] = []
    for rank in range(ranks):
        sampler, memory = DistributedSampler(range(length), ranks, rank), Passes(length)
        for index in range(looks):
            memory.advance([index])
        for epoch in range(10):
            sampler.set_epoch(epoch)
            indices = list(sampler)
            end = len(indices) - len(indices) % batch_size if drop_last else len(indices)
            for start in range(0, end, batch_size):
                some = indices[start : start + batch_size]
                drawn += zip(some, memory.advance(some), strict=True)
    assert len(set(drawn)) == len(drawn)
