"""Decoded pictures kept in memory, so that a generator with stored codes decodes each of them once."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dim_data.generator import Generator

__all__ = ["PictureCache"]

SHARED = Path("/dev/shm")  # where Linux keeps what processes share; small in most containers


class PictureCache:
    """Synthesize as a generator with stored codes does, bit for bit, but decode no code twice.

    A picture is decoded when it is first asked for. Memory grows to one byte for each pixel and channel of each
    code: 154 MB for 50,000 codes of 32x32 RGB.

    Args:
        generator: One that stores codes.
        shared: Let worker processes, forked or spawned, fill and read one cache together (on the CPU).

    Raises:
        MemoryError: ``shared``, and the system has too little shared memory.
        ValueError: The generator is driven by noise: no picture ever comes again.
    """

    def __init__(self, generator: Generator, *, shared: bool = False) -> None:
        if not generator.source.finite:
            raise ValueError(
                "a cache needs stored codes; this generator is driven by noise, and no picture of it ever comes "
                "again: leave out cache=True, or freeze one set by DistilledDataset(..., fixed=True)"
            )
        self.generator = generator
        spec, codes = generator.spec, generator.bank.codes
        shape = (len(codes), spec.channels, spec.size, spec.size)
        if shared:
            _check_shared_memory(math.prod(shape) + len(codes))
        self._pictures = torch.empty(shape, dtype=torch.uint8, device=codes.device)
        self._known = torch.zeros(len(codes), dtype=torch.bool, device=codes.device)
        self._filled = False
        self._shared = shared
        self._share()

    def _share(self) -> None:
        if self._shared:
            self._pictures.share_memory_()
            self._known.share_memory_()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._share()  # a copy's memory is its own again

    def synthesize(self, labels: Tensor, serials: Tensor, seed: int = 0) -> Tensor:
        """What :meth:`Generator.synthesize <dim_data.generator.Generator.synthesize>` returns for these arguments."""
        self.generator.check_labels(labels)
        return self.decode(self.generator.rows(labels, serials, seed))

    def decode(self, rows: Tensor) -> Tensor:
        """What :meth:`Generator.decode <dim_data.generator.Generator.decode>` returns for these rows."""
        if not self._filled:
            missing = rows[~self._known[rows]].unique()
            if len(missing):
                self._pictures[missing] = self.generator.decode(missing)
                self._known[missing] = True  # last: another process may look at any moment
            self._filled = bool(self._known.all())  # from then on nobody waits for an answer of the device
        return self._pictures[rows]


def _check_shared_memory(wanted: int) -> None:
    """A process that writes past the end of shared memory is killed without a word; ask first."""
    if not SHARED.is_dir():
        return
    stat = os.statvfs(SHARED)
    free = stat.f_bavail * stat.f_frsize
    if wanted > free:
        raise MemoryError(
            f"cache=True needs {wanted / 1e6:.0f} MB of shared memory and {SHARED} has {free / 1e6:.0f} MB left: "
            f"enlarge it (docker run --shm-size=1g), or leave out cache=True"
        )
