"""Which epoch a draw belongs to, agreed on by all processes that draw, with nobody announcing an epoch."""

from __future__ import annotations

import os
import weakref
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch.utils.data import get_worker_info

from dim_data.loading.memory import shared_zeros
from dim_data.networks import is_spawning, share_memory

__all__ = ["MAX_EPOCH", "Passes", "check_int", "check_state", "settings_to_save"]

MAX_EPOCH = 2**31 - 2
ADDED = {"refresh": 1.0}
"""Settings that a state holds only where they are others: older states have none."""


def check_int(name: str, value: Any, low: int | None = None, high: int | None = None) -> int:
    """``value`` as an int in [low, high]; ``TypeError`` or ``ValueError`` with a sentence otherwise."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, got {value!r}")
    if low is not None and value < low:
        raise ValueError(f"{name} must be at least {low}, got {value}")
    if high is not None and value > high:
        raise ValueError(f"{name} must be at most {high}, got {value}")
    return int(value)


def settings_to_save(settings: Mapping[str, Any]) -> dict[str, Any]:
    """``settings`` as a state holds them, for :func:`check_state`."""
    return {name: value for name, value in settings.items() if name not in ADDED or value != ADDED[name]}


def check_state(state: Mapping[str, Any], settings: Mapping[str, Any], keys: set[str]) -> None:
    """Raise ``ValueError`` unless ``state`` has ``keys`` and ``"settings"``, and those are ``settings``."""
    wanted = {"settings", *keys}
    if not isinstance(state, Mapping) or set(state) != wanted:
        found = sorted(map(str, state)) if isinstance(state, Mapping) else type(state).__name__
        raise ValueError(f"a state has the keys {sorted(wanted)}, got {found}")
    saved = state["settings"]
    if isinstance(saved, Mapping):
        saved = {**{name: value for name, value in ADDED.items() if name in settings}, **saved}
    if not isinstance(saved, Mapping) or set(saved) != set(settings):
        raise ValueError(f"a state's settings are {sorted(settings)}, got {saved!r}")
    for name, value in settings.items():
        if saved[name] != value:
            raise ValueError(
                f"this state was saved with {name}={saved[name]!r}, but here {name}={value!r}: "
                f"build it with {name}={saved[name]!r} to go on"
            )


class Passes:
    """Give each draw of an index an epoch in which that index was never drawn before.

    Each index remembers the epoch of its last draw. The current epoch is the largest of those, and a batch
    with an index that was already drawn in it starts the next one. Where the ranks of a process group share the
    indices out, so does a batch past as many draws as fall to each: none of them need have been drawn here yet. The
    memory is shared with worker processes, forked or spawned, which reach the same answer in any order and without a
    lock: a plain integer would stay 0 in persistent workers, each of which holds a copy. A count for each index would
    not do, for ranks that share out the indices anew in each epoch would repeat one another's pictures.

    A pickle or deep copy goes its own way from where it was made. So does a process that is forked or spawned
    with it and is no worker of a ``DataLoader``, such as one of several jobs: its workers follow it. Workers that were
    forked are left behind where others are spawned while they run.

    Args:
        length: How many indices there are; six bytes each.
    """

    def __init__(self, length: int) -> None:
        self._settle_in(*(np.full(n, -1) for n in (length, length, 1)))

    def _settle_in(self, last: NDArray[Any], owner: NDArray[Any], pinned: NDArray[Any]) -> None:
        """Keep these values in common memory from now on."""
        self._last = shared_zeros(len(last), dtype=torch.int32)
        self._owner = shared_zeros(len(last), dtype=torch.int16)  # the worker of the last draw; -1: none
        self._pinned = shared_zeros(1, dtype=torch.int64)
        for kept, values in zip((self._last, self._owner, self._pinned), (last, owner, pinned), strict=True):
            kept.numpy()[:] = values
        self._inherited: list[NDArray[Any]] | None = None
        self._ranks = 1
        _LIVING.add(self)

    def snapshot(self) -> list[NDArray[Any]]:
        """Where it stands: what a new process that turns out to be no worker goes on from."""
        return [kept.numpy().copy() for kept in (self._last, self._owner, self._pinned)]

    def inherit(self, snapshot: list[NDArray[Any]]) -> None:
        """Note, in a new process, where the parent stood."""
        self._inherited = snapshot

    def settle(self) -> None:
        """Decide, in a process that inherited its memory, whether to share it with the parent."""
        if self._inherited is not None:
            if get_worker_info() is None:
                self._settle_in(*self._inherited)
            self._inherited = None

    def __getstate__(self) -> dict[str, Any]:
        self.settle()
        self._count_ranks()
        if is_spawning():
            share_memory(self._last, self._owner, self._pinned)
        return self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.inherit(self.snapshot())
        _LIVING.add(self)

    @property
    def pinned(self) -> int | None:
        """The epoch that all draws are in, if any."""
        self.settle()
        epoch = int(self._pinned.numpy()[0])
        return epoch if epoch >= 0 else None

    @property
    def epoch(self) -> int:
        """The pinned epoch, else that of the latest draws; 0 before any."""
        pinned = self.pinned
        return self._latest() if pinned is None else pinned

    def in_each_pass(self, epoch: int) -> NDArray[np.bool_]:
        """Which indices a pass is of, as ``epoch`` begins: bool (N,). All of them, where that cannot be told.

        So it is where ranks share them out, and where few were drawn in the epoch before: then it was no pass that
        began ``epoch``, but an index that came twice, as in drawing with replacement.
        """
        self._count_ranks()
        last = self._last.numpy()
        drawn = last >= 0
        steady = 4 * int((last >= epoch - 1).sum()) >= 3 * int(drawn.sum())
        return drawn if steady and self._ranks == 1 else np.ones_like(drawn)

    def drew_before(self, epoch: int) -> bool:
        """Whether the last draw of some index was in an earlier epoch."""
        last = self._last.numpy()
        return bool(((last >= 0) & (last < epoch)).any())

    def _latest(self) -> int:
        return max(0, int(self._last.numpy().max()))

    def pin(self, epoch: int | None) -> None:
        """Let all draws be in ``epoch`` (0 to :data:`MAX_EPOCH`); ``None`` lets go."""
        self.settle()
        self._pinned.numpy()[0] = -1 if epoch is None else check_int("epoch", epoch, 0, MAX_EPOCH)

    def advance(self, indices: Sequence[int]) -> list[int]:
        """Note that ``indices`` are drawn; the epoch of each.

        All of a batch are in one epoch, save that an index drawn several times in it runs ahead.
        """
        pinned, last = self.pinned, self._last.numpy()
        where = np.asarray(indices, np.int64)
        if pinned is not None:
            epochs = [pinned] * len(where)
        else:
            current = self._latest()
            current += bool((last[where] >= current).any()) or self._would_exceed_its_share(current, len(where))
            seen: Counter[int] = Counter()
            epochs = []
            for index in indices:
                epochs.append(current + seen[index])
                seen[index] += 1
        # Claimed, then noted; whoever asks reads in the other order. So no state holds another worker's draw.
        self._claim(where)
        last[where] = np.maximum(last[where], epochs)  # of an index drawn twice, the last one counts
        return epochs

    def _would_exceed_its_share(self, epoch: int, count: int) -> bool:
        """Whether ``count`` more draws in ``epoch`` are more of it than falls to each rank of a process group.

        So a rank that looked at a picture beforehand, or left the end of an epoch out, moves on with the others.
        """
        self._count_ranks()
        if self._ranks == 1:
            return False
        last = self._last.numpy()
        return int((last == epoch).sum()) + count > -(-len(last) // self._ranks)

    def _count_ranks(self) -> None:
        # A worker that was spawned knows of no group: there the number stays what it was in the main process.
        if dist.is_available() and dist.is_initialized():
            self._ranks = dist.get_world_size()

    def _claim(self, indices: NDArray[np.int64]) -> None:
        worker = get_worker_info()
        self._owner.numpy()[indices] = -1 if worker is None else worker.id

    def _mine(self) -> NDArray[np.bool_]:
        # A worker's own draws are exactly those handed out when torchdata asks for its state; other workers
        # may be ahead. So each reports its own, and worker 0 also what no worker of this loader drew.
        worker = get_worker_info()
        if worker is None:
            return np.ones(len(self._owner), np.bool_)
        owner = self._owner.numpy()
        mine = owner == worker.id
        return mine if worker.id else mine | (owner < 0) | (owner >= worker.num_workers)

    def state_dict(self) -> dict[str, Any]:
        """What this process drew, JSON-ready: the latest epoch and a bit for each index drawn in it."""
        self.settle()
        last = self._last.numpy().copy()
        latest = max(0, int(last.max()))
        drawn = (last == latest) & self._mine()
        bits = np.packbits(drawn).tobytes().hex()
        return {"epoch": latest, "pinned": self.pinned, "drawn": bits}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Stand where the state was taken; several workers may each load their share, in any order."""
        epoch = check_int("epoch", state["epoch"], 0, MAX_EPOCH)
        self.pin(state["pinned"])
        packed = np.frombuffer(bytes.fromhex(state["drawn"]), np.uint8)
        if len(packed) != -(-len(self._last) // 8):
            raise ValueError(
                f"a state's 'drawn' holds a bit for each of {len(self._last)} indices, got {8 * len(packed)}"
            )
        bits = np.unpackbits(packed, count=len(self._last))
        drawn, last = bits.nonzero()[0], self._last.numpy()
        later = last >= epoch
        last[later & self._mine()] = -1
        self._claim(drawn)
        last[drawn] = epoch


_LIVING: weakref.WeakSet[Passes] = weakref.WeakSet()


_SNAPSHOTS: list[tuple[Passes, list[NDArray[Any]]]] = []


def _before_fork() -> None:
    for passes in list(_LIVING):
        passes.settle()  # the workers of a job must find the job's own memory, though it never drew
        _SNAPSHOTS.append((passes, passes.snapshot()))


def _after_fork_in_child() -> None:
    while _SNAPSHOTS:
        passes, snapshot = _SNAPSHOTS.pop()
        passes.inherit(snapshot)


if hasattr(os, "register_at_fork"):  # elsewhere every process is spawned
    os.register_at_fork(before=_before_fork, after_in_parent=_SNAPSHOTS.clear, after_in_child=_after_fork_in_child)
