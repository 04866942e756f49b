"""Decoded pictures kept in memory, so that a generator with stored codes decodes each of them once."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dim_data.generator import Generator
from dim_data.images import torch_defaults
from dim_data.loading.keeping import CachingPainter

__all__ = ["PictureCache"]


class PictureCache(CachingPainter):
    """Synthesize as a generator with stored codes does, bit for bit, but decode no code twice.

    A picture is decoded when it is first asked for. Memory grows to one byte for each pixel and channel of each
    code: 154 MB for 50,000 codes of 32x32 RGB. Where a weight of the generator is changed, as torch counts changes, it
    begins anew. What is pickled or copied begins empty, save in workers that share it.

    Args:
        generator: One that stores codes.
        shared: Let worker processes, forked or spawned, fill and read one cache together (on the CPU). Only those
            that are spawned need ``/dev/shm`` for it, and take all of it at once.
        optional: Decode each time where there is too little memory, without an error.

    Raises:
        MemoryError: ``shared``, it is pickled for a process that is spawned, and there is too little ``/dev/shm``.
        ValueError: The generator is driven by noise: no picture ever comes again.
    """

    def __init__(self, generator: Generator, *, shared: bool = False, optional: bool = False) -> None:
        if not generator.source.finite:
            raise ValueError(
                "a cache needs stored codes; this generator is driven by noise, and no picture of it ever comes "
                "again: leave out cache=True, keep pictures for some passes by refresh=0.1, or freeze one set by "
                "DistilledDataset(..., fixed=True)"
            )
        super().__init__(generator, self.shape_for(generator), torch.bool, shared=shared, optional=optional)

    @staticmethod
    def shape_for(generator: Generator) -> tuple[int, int]:
        """Pictures it keeps at most, and the bytes of each."""
        spec = generator.spec
        return len(generator.bank), math.prod((spec.channels, spec.size, spec.size))

    @torch_defaults(painting=True)
    def synthesize(self, labels: Tensor, serials: Tensor, seed: int = 0) -> Tensor:
        """What :meth:`Generator.synthesize <dim_data.generator.Generator.synthesize>` returns for these arguments."""
        self.generator.check_labels(labels)
        return self.decode(self.generator.rows(labels, serials, seed))

    @torch_defaults(painting=True)
    def decode(self, rows: Tensor) -> Tensor:
        """What :meth:`Generator.decode <dim_data.generator.Generator.decode>` returns for these rows."""
        memory = self._kept()
        if memory is None:
            return self.generator.decode(rows)
        if not memory.full:
            missing = rows[~memory.marks[rows]].unique()
            if len(missing):
                memory.rows[missing] = self.generator.decode(missing).flatten(1)
                memory.marks[missing] = True  # last: another process may look at any moment
            memory.full = bool(memory.marks.all())  # from then on nobody waits for an answer of the device
        return memory.rows[rows].unflatten(1, self._picture)

    @property
    def is_full(self) -> bool:
        """Whether every code was decoded by now, as far as this process knows."""
        return self._memory is not None and self._memory.full
