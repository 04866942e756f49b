"""Pictures painted some at a time and kept for who asks for them one by one."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dim_data.loading.memory import SHARE, free_shared_memory, shared_zeros
from dim_data.networks import share_memory

__all__ = ["MEMORY", "BlockCache"]

MEMORY = 1 << 28
"""Bytes that blocks take at most: an epoch of 87,000 pictures of 32x32 RGB."""
HANDED = 1 << 26
"""Bytes of blocks that are shared with processes that are spawned, at most."""


class BlockCache:
    """Keep what was painted together: a block is the rows of ``size`` neighbouring indices in one epoch.

    A network paints a whole chunk for a single picture. Whoever asks for one picture therefore gets its block
    painted, and its neighbours are there when they are asked for, in order or, where an epoch fits into
    :data:`MEMORY`, in any order. Processes forked from here share the blocks, and so do those that are spawned, if
    :meth:`share_memory` says so. They write them without a lock; a check sum tells a row that two have written at once,
    which is then painted again.

    Args:
        length: How many indices an epoch has.
        size: Indices in a block.
        width: Bytes of a row.
    """

    def __init__(self, length: int, size: int, width: int) -> None:
        self.size = size
        wanted = -(-length // size)
        self._count = min(wanted, max(1, MEMORY // (size * width)))
        self._key: tuple[Any, ...] = ()
        self._base = 0
        self._memory = (
            shared_zeros(self._count, size, width, dtype=torch.uint8),
            shared_zeros(self._count, size, dtype=torch.int64),
            shared_zeros(self._count, dtype=torch.int64),
        )
        self._look()

    def _look(self) -> None:
        self._rows, self._sums, self._keys = (part.numpy() for part in self._memory)

    def share_memory(self) -> bool:
        """Let a process that is being spawned share the blocks, if they are few; whether they are."""
        if not self._memory[0].is_shared():
            # All of it is taken at once, needed or not.
            if sum(part.nbytes for part in self._memory) > min(HANDED, free_shared_memory() / SHARE):
                return False
            try:
                share_memory(*self._memory)
            except RuntimeError:
                return False
            self._look()
        return True

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_rows", "_sums", "_keys")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._look()

    def row(self, key: tuple[Any, ...], index: int, paint: Callable[[Tensor], NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """The row of ``index``, uint8 (width,), the caller's own.

        Args:
            key: What besides the index a row depends on; its ``repr`` is the same in all processes.
            index: Non-negative.
            paint: The rows, uint8 (size, width), of indices int64 (size,) that follow one another; some may lie past
                the end of the epoch.
        """
        block, place = divmod(index, self.size)
        if key != self._key:
            # Not hash(), to which -1 and -2 are the same.
            self._base = int.from_bytes(blake2b(repr(key).encode(), digest_size=7).digest(), "little")
            self._key = key
        slot, stamp = block % self._count, self._base + block
        if self._keys[slot] == stamp:
            row = self._rows[slot, place].copy()
            if self._sums[slot, place] == _sum(row, stamp):
                return row
        painted = paint(torch.arange(block * self.size, (block + 1) * self.size, device="cpu"))
        self._keys[slot] = 0
        self._rows[slot] = painted
        self._sums[slot] = [_sum(row, stamp) for row in painted]
        self._keys[slot] = stamp
        return painted[place].copy()


def _sum(row: NDArray[np.uint8], stamp: int) -> int:
    return zlib.crc32(row.data, stamp & 0xFFFFFFFF)
