"""Memory that a process reads and writes together with the worker processes it starts."""

from __future__ import annotations

import math
import mmap
from multiprocessing.context import get_spawning_popen

import torch
from torch import Tensor

from dim_data.images import torch_defaults

__all__ = ["common", "hand_on", "is_spawning"]


@torch_defaults(painting=True)
def common(*shape: int, dtype: torch.dtype) -> Tensor:
    """Zeros in memory that every process forked from here shares, whatever there is of ``/dev/shm``.

    A page of it takes no memory until it is written.
    """
    count = math.prod(shape)
    if not count:
        return torch.zeros(shape, dtype=dtype)
    return torch.frombuffer(mmap.mmap(-1, count * dtype.itemsize), dtype=dtype).view(shape)


def is_spawning() -> bool:
    """Whether what is pickled now goes to a process that is being spawned, which shares what it is handed."""
    return get_spawning_popen() is not None


def hand_on(*tensors: Tensor) -> None:
    """Move ``tensors`` to where a process that is being spawned can share them: ``/dev/shm`` on Linux.

    Raises:
        RuntimeError: There is no room, or no right, for that.
    """
    for tensor in tensors:
        try:
            tensor.share_memory_()
        except (OSError, RuntimeError) as error:
            raise RuntimeError(
                f"a worker that is spawned needs shared memory, and there is none to be had ({error}): enlarge it "
                "(docker run --shm-size=1g), or use num_workers=0 or multiprocessing_context='fork', which need none"
            ) from error
