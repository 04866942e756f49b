"""Work shared out to threads so that its results do not depend on how many there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

__all__ = ["side_by_side"]

T = TypeVar("T")
R = TypeVar("R")


def side_by_side(work: Callable[[T], R], parts: Sequence[T], device: torch.device) -> list[R]:
    """``work`` of each part: on a CPU each computed by a single thread, as many at a time as torch has threads here.

    Kernels on a CPU may sum in another order for another number of threads. A new thread begins with gradients on, and
    without what the caller's is set to: ``work`` sets what it needs. On a GPU there is but the caller's thread.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1 or not parts:
        return [work(part) for part in parts]
    with ThreadPoolExecutor(min(threads, len(parts)), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            return list(pool.map(work, parts))
        finally:
            torch.set_num_threads(threads)  # a thread that begins later takes over the number that was set last
