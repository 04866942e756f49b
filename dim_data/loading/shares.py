"""Which part of an epoch is whose, where several processes train together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from dim_data.loading.passes import check_int
from dim_data.networks import compare_notes

__all__ = ["Share", "agree", "check_share", "present_share"]

PATIENCE = 5.0
"""Seconds that a rank waits at its first pass for the others to begin theirs, before it compares what it knows."""
NOTES = "dim_data.loading"


@dataclass(frozen=True)
class Share:
    """One of ``world_size`` equal parts of an epoch.

    In each step the ranks take blocks that follow one another: their batches, put together in the order of the
    ranks, are the batch that one process would have made, ``world_size`` times as large.
    """

    rank: int = 0
    world_size: int = 1

    def count(self, left: int, batch_size: int, drop_last: bool) -> int:
        """How many of the ``left`` pictures each rank gets.

        Raises:
            ValueError: They cannot be shared out equally.
        """
        step = batch_size * self.world_size
        if drop_last:
            return left // step * batch_size
        if left % self.world_size:
            raise ValueError(
                f"{left} pictures cannot be shared out equally to {self.world_size} ranks: choose ipc such that ipc "
                f"times the number of classes is a multiple of {self.world_size}, or leave out the rest by "
                "drop_last=True; a pass taken up at another number of ranks may also be left by set_epoch(epoch + 1)"
            )
        return left // self.world_size

    def places(self, start: int, stop: int, count: int, batch_size: int) -> Tensor:
        """Where the pictures of this rank from its ``start``-th up to its ``stop``-th lie among all: int64.

        Args:
            start: Where to begin among those of this rank.
            stop: Where to end; past the last is the same as there.
            count: How many this rank has, from :meth:`count`.
            batch_size: Pictures in a batch of one rank.
        """
        own = torch.arange(start, min(stop, count))
        if self.world_size == 1:
            return own
        batches = own // batch_size
        sizes = (count - batches * batch_size).clamp(max=batch_size)  # of the batch that each lies in
        return own + batches * batch_size * (self.world_size - 1) + self.rank * sizes


def check_share(rank: Any, world_size: Any) -> Share | None:
    """What was given as ``rank`` and ``world_size``; ``None`` if neither was.

    Raises:
        TypeError: One of them is no int.
        ValueError: Only one is given, or ``rank`` is outside [0, world_size).
    """
    if rank is None and world_size is None:
        return None
    if rank is None or world_size is None:
        raise ValueError(
            f"rank and world_size go together, got rank={rank!r} and world_size={world_size!r}: give both, or "
            "neither where torch.distributed knows them"
        )
    world_size = check_int("world_size", world_size, 1)
    return Share(check_int("rank", rank, 0, world_size - 1), world_size)


def present_share() -> Share:
    """The part of this process in the process group, if there is one by now; else all."""
    if not (dist.is_available() and dist.is_initialized()):
        return Share()
    return Share(dist.get_rank(), dist.get_world_size())


def agree(settings: Mapping[str, Any], share: Share) -> None:
    """Raise ``ValueError`` where another rank begins its first pass with other ``settings``.

    Ranks leave notes in the store of the process group; nobody has to answer. So a rank that reads a batch alone,
    for a look at it, waits for :data:`PATIENCE` once and goes on.

    Args:
        settings: JSON-ready, equal on all ranks where all is well.
        share: Rank and number of ranks, as the process group has them.
    """
    other = compare_notes(NOTES, settings, share.rank, share.world_size, PATIENCE)
    if other is not None:
        raise ValueError(_difference(settings, share.rank, other[1], other[0]))


def _difference(mine: Mapping[str, Any], here: int, theirs: Mapping[str, Any], there: int) -> str:
    names = [name for name in mine if theirs[name] != mine[name]]
    ours, others = (", ".join(f"{name}={given[name]!r}" for name in names) for given in (mine, theirs))
    return (
        f"ranks share an epoch only where all begin with the same, but rank {there} has {others} and rank {here} has "
        f"{ours}: give every rank the same (and load a state on every rank), or give rank=0, world_size=1 to a "
        "loader that one rank reads alone"
    )
