"""BlockCache: pictures asked for one by one, painted a few at a time."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dim_data.loading import blocks as module
from dim_data.loading.blocks import BlockCache


class Painter:
    """Paints rows that say which they are, and notes when."""

    def __init__(self, epoch: int = 0) -> None:
        self.epoch, self.calls = epoch, 0

    def __call__(self, places: torch.Tensor) -> NDArray[np.uint8]:
        self.calls += 1
        return np.stack([row(self.epoch, int(place)) for place in places])


def row(epoch: int, index: int) -> NDArray[np.uint8]:
    return np.random.default_rng([epoch + 9, index]).integers(0, 256, 12, np.uint8)


@pytest.mark.parametrize("order", ["forward", "backward", "shuffled"])
def test_a_sheet_is_painted_once_in_any_order(order: str) -> None:
    blocks, painter = BlockCache(50, 8, 12), Painter()
    places = {"forward": range(50), "backward": range(49, -1, -1), "shuffled": np.random.default_rng(0).permutation(50)}
    for index in map(int, places[order]):
        assert np.array_equal(blocks.row((0,), index, painter), row(0, index))
    assert painter.calls == 7


def test_another_key_is_another_sheet() -> None:
    blocks = BlockCache(16, 8, 12)
    for epoch in (0, 1, 0, -1, -2):
        painter = Painter(epoch)
        for index in range(16):
            assert np.array_equal(blocks.row((epoch,), index, painter), row(epoch, index))
        assert painter.calls == 2


def test_a_row_is_the_callers_own() -> None:
    blocks, painter = BlockCache(8, 8, 12), Painter()
    for _ in range(2):
        found = blocks.row((0,), 3, painter)
        assert np.array_equal(found, row(0, 3))
        found[:] = 0


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEMORY", 2 * 8 * 12)
    blocks, painter = BlockCache(800, 8, 12), Painter()
    assert blocks._rows.nbytes == 2 * 8 * 12
    for index in range(800):
        assert np.array_equal(blocks.row((0,), index, painter), row(0, index))
    assert painter.calls == 100


def test_a_row_that_two_have_written_is_painted_again() -> None:
    blocks, painter = BlockCache(8, 8, 12), Painter()
    blocks.row((0,), 0, painter)
    blocks._rows[0, 5] = row(1, 5)  # what another process writes meanwhile
    assert np.array_equal(blocks.row((0,), 5, painter), row(0, 5))
    assert painter.calls == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes are forked here")
def test_a_forked_process_shares_what_is_painted() -> None:
    blocks = BlockCache(16, 8, 12)
    child = os.fork()
    if not child:
        blocks.row((0,), 9, Painter())
        os._exit(0)
    os.waitpid(child, 0)

    def refuse(places: Any) -> Any:
        raise AssertionError(f"{places} were painted before")

    assert np.array_equal(blocks.row((0,), 12, refuse), row(0, 12))
