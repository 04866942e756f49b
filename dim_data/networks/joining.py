"""How a process comes to be one of several: the group that a launcher describes, and the GPU that is its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from dim_data.networks.compute import resolve_device
from dim_data.networks.ranks import Ranks

__all__ = ["is_first", "joined", "own_device"]

DESCRIBED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What ``torchrun`` and others leave in the environment of each process that they start."""


def is_first() -> bool:
    """Whether this process is the one of its job that writes and prints: as its launcher says."""
    return not _started() or os.environ["RANK"] == "0"


def _started() -> bool:
    """Whether a launcher started several processes, and this is one of them."""
    return all(name in os.environ for name in DESCRIBED) and int(os.environ["WORLD_SIZE"]) > 1


@contextmanager
def joined(device: str | torch.device | None = None) -> Iterator[Ranks]:
    """The ranks of this job. Where a launcher has started several and there is no group yet, it is made, and left.

    Args:
        device: What will be computed on; default: CUDA where there is one.

    Raises:
        RuntimeError: There is no GPU for this rank.
    """
    if not _started() or not dist.is_available() or dist.is_initialized():
        yield Ranks.present()
        return
    device = resolve_device(device)
    # A rank without a GPU of its own would leave the others waiting for it: all meet first, and are told then.
    usable = device.type == "cuda" and _own_index() < torch.cuda.device_count()
    if usable:
        torch.cuda.set_device(_own_index() if device.index is None else device.index)
    dist.init_process_group("cpu:gloo,cuda:nccl" if usable else "gloo")
    try:
        yield Ranks.present()
    finally:
        dist.destroy_process_group()


def own_device(device: str | torch.device | None, ranks: Ranks | None = None) -> torch.device:
    """The device of this rank: of ``"cuda"`` or ``None``, the GPU that is its own.

    Args:
        device: What was asked for.
        ranks: Who this is; default: its place in the process group, if there is one.

    Raises:
        RuntimeError: It has none.
    """
    device, ranks = resolve_device(device), ranks or Ranks.present()
    if ranks.size == 1 or device.type != "cuda" or device.index is not None:
        return device
    index, count = _own_index(), torch.cuda.device_count()
    if index >= count:
        raise RuntimeError(
            f"rank {ranks.rank} has no GPU: there {'is' if count == 1 else 'are'} {count} here, for more processes. "
            f"Start {count} with --nproc_per_node {count}, or pass device='cpu'"
        )
    return torch.device("cuda", index)


def _own_index() -> int:
    """Of this process's GPU among those that it sees; with one GPU made visible to each, that one."""
    only = "CUDA_VISIBLE_DEVICES" in os.environ and torch.cuda.device_count() == 1
    return 0 if only else int(os.environ.get("LOCAL_RANK", torch.cuda.current_device()))
