"""Memory that a process reads and writes together with the worker processes it starts."""

from __future__ import annotations

import math
import mmap
import os
from pathlib import Path

import torch
from torch import Tensor

from dim_data.images import torch_defaults

__all__ = ["SHARE", "SHARED", "free_shared_memory", "shared_zeros"]

SHARED = Path("/dev/shm")  # where Linux keeps what spawned processes share; small in most containers
SHARE = 4
"""A cache that is not asked for takes at most one part of so many of the free memory."""


@torch_defaults(painting=True)
def shared_zeros(*shape: int, dtype: torch.dtype) -> Tensor:
    """Zeros in memory that every process forked from here shares, whatever there is of ``/dev/shm``.

    A page of it takes no memory until it is written.
    """
    count = math.prod(shape)
    if not count:
        return torch.zeros(shape, dtype=dtype)
    return torch.frombuffer(mmap.mmap(-1, count * dtype.itemsize), dtype=dtype).view(shape)


def free_shared_memory() -> float:
    """Bytes. A process that writes past the end of shared memory is killed without a word; ask first."""
    if not SHARED.is_dir():
        return math.inf
    stat = os.statvfs(SHARED)
    return stat.f_bavail * stat.f_frsize
