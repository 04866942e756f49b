"""Which epoch a draw belongs to, agreed on by all processes that draw, with nobody announcing an epoch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from dim_data.images import torch_defaults

__all__ = ["MAX_EPOCH", "Passes", "check_int", "check_state"]

MAX_EPOCH = 2**31 - 2


def check_int(name: str, value: Any, low: int | None = None, high: int | None = None) -> int:
    """``value`` as an int in [low, high]; ``TypeError`` or ``ValueError`` with a sentence otherwise."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, got {value!r}")
    if low is not None and value < low:
        raise ValueError(f"{name} must be at least {low}, got {value}")
    if high is not None and value > high:
        raise ValueError(f"{name} must be at most {high}, got {value}")
    return int(value)


def check_state(state: Mapping[str, Any], settings: Mapping[str, Any], keys: set[str]) -> None:
    """Raise ``ValueError`` unless ``state`` has ``keys`` and ``"settings"``, and those are ``settings``."""
    wanted = {"settings", *keys}
    if not isinstance(state, Mapping) or set(state) != wanted:
        found = sorted(map(str, state)) if isinstance(state, Mapping) else type(state).__name__
        raise ValueError(f"a state has the keys {sorted(wanted)}, got {found}")
    saved = state["settings"]
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
    with an index that was already drawn in it starts the next one. The memory is shared with worker
    processes, forked or spawned, which reach the same answer in any order and without a lock: a plain integer
    would stay 0 in persistent workers, each of which holds a copy. A count for each index would not do, for
    ranks that share out the indices anew in each epoch would repeat one another's pictures.

    A pickle or deep copy goes its own way from where it was made.

    Args:
        length: How many indices there are; six bytes each.
    """

    @torch_defaults(painting=True)
    def __init__(self, length: int) -> None:
        self._last = torch.full((length,), -1, dtype=torch.int32)
        self._owner = torch.full((length,), -1, dtype=torch.int16)  # the worker of the last draw; -1: none
        self._pinned = torch.tensor(-1)
        self._share()

    def _share(self) -> None:
        counters: Any
        for counters in (self._last, self._owner, self._pinned):
            counters.share_memory_()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._share()

    @property
    def pinned(self) -> int | None:
        """The epoch that all draws are in, if any."""
        return int(self._pinned) if self._pinned >= 0 else None

    @property
    def epoch(self) -> int:
        """The pinned epoch, else that of the latest draws; 0 before any."""
        return int(self._pinned) if self._pinned >= 0 else max(0, int(self._last.max()))

    def pin(self, epoch: int | None) -> None:
        """Let all draws be in ``epoch`` (0 to :data:`MAX_EPOCH`); ``None`` lets go."""
        self._pinned.fill_(-1 if epoch is None else check_int("epoch", epoch, 0, MAX_EPOCH))

    @torch_defaults(painting=True)
    def advance(self, indices: Tensor) -> Tensor:
        """Note that ``indices``, int64 (B,), are drawn; the epoch of each, int64 (B,).

        All of a batch are in one epoch, save that an index drawn several times in it runs ahead.
        """
        if self._pinned >= 0:
            epochs = torch.full_like(indices, int(self._pinned))
        else:
            current = self.epoch
            current += bool((self._last[indices] >= current).any())
            seen: Counter[int] = Counter()
            ahead = []
            for index in indices.tolist():
                ahead.append(seen[index])
                seen[index] += 1
            epochs = current + torch.tensor(ahead, dtype=torch.int64)
        # Claimed, then noted; whoever asks reads in the other order. So no state holds another worker's draw.
        self._claim(indices)
        self._last.scatter_reduce_(0, indices, epochs.int(), "amax")
        return epochs

    def _claim(self, indices: Tensor) -> None:
        worker = get_worker_info()
        self._owner[indices] = -1 if worker is None else worker.id

    def _mine(self) -> Tensor:
        # A worker's own draws are exactly those handed out when torchdata asks for its state; other workers
        # may be ahead. So each reports its own, and worker 0 also what no worker of this loader drew.
        worker = get_worker_info()
        if worker is None:
            return torch.ones_like(self._owner, dtype=torch.bool)
        mine = self._owner == worker.id
        return mine if worker.id else mine | (self._owner < 0) | (self._owner >= worker.num_workers)

    def state_dict(self) -> dict[str, Any]:
        """What this process drew, JSON-ready: the latest epoch and a bit for each index drawn in it."""
        last = self._last.clone()
        latest = max(0, int(last.max()))
        drawn = (last == latest) & self._mine()
        bits = np.packbits(drawn.numpy()).tobytes().hex()
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
        drawn = torch.from_numpy(bits).nonzero()[:, 0]
        later = self._last >= epoch
        self._last[later & self._mine()] = -1
        self._claim(drawn)
        self._last[drawn] = epoch
