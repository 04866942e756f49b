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
