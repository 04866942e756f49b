"""Pictures kept in memory that worker processes share, until a weight of their generator changes."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dim_data.generator import Generator
from dim_data.images import torch_defaults
from dim_data.loading.memory import SHARE, SHARED, free_shared_memory, shared_zeros
from dim_data.networks import is_spawning, share_memory, version_of

__all__ = ["CachingPainter", "Memory"]


@dataclass
class Memory:
    """Rows of bytes, each with a mark that tells whether it is known.

    Attributes:
        rows: uint8 (N, width).
        marks: (N,), zeros to begin with.
        full: Whether all rows are known, as far as this process has seen.
    """

    rows: Tensor
    marks: Tensor
    full: bool = False


class CachingPainter(ABC):
    """Paints as a generator does, bit for bit, and keeps what it has painted; a subclass says by what.

    Memory is taken as pictures are asked for: until then it is address space, except on a GPU, where it is taken at the
    first picture, and in processes that are spawned, which are handed all of it. Forked processes share it as it is. A
    pickle or deep copy that goes elsewhere begins with none of the pictures.

    Where a weight of the generator has changed, the process that finds it so begins anew, in memory of its own.

    Args:
        generator: Paints.
        shape: (N, width), the rows to keep and the bytes of each.
        marks: Number format of the marks.
        shared: Let worker processes fill and read this memory together; on the CPU only.
        optional: Do without, and paint each picture anew, where there is too little memory: in processes that are
            spawned more than a quarter of the free ``/dev/shm``.

    Raises:
        MemoryError: Not ``optional``, and pickled for a process that is spawned, where ``/dev/shm`` is too small.
    """

    def __init__(
        self, generator: Generator, shape: tuple[int, int], marks: torch.dtype, *, shared: bool, optional: bool
    ) -> None:
        self.generator = generator
        self._shape, self._marks, self._shared, self._optional = shape, marks, shared, optional
        spec = generator.spec
        self._picture = (spec.channels, spec.size, spec.size)
        self._memory: Memory | None = None
        self._does_without = False
        self._settle()

    @abstractmethod
    def synthesize(self, labels: Tensor, serials: Tensor, seed: int = 0) -> Tensor:
        """What :meth:`Generator.synthesize <dim_data.generator.Generator.synthesize>` returns for these arguments."""

    def decode(self, rows: Tensor) -> Tensor:
        """What :meth:`Generator.decode <dim_data.generator.Generator.decode>` returns for these rows."""
        return self.generator.decode(rows)

    def soft_labels(self, labels: Tensor, serials: Tensor, seed: int = 0, pictures: Tensor | None = None) -> Tensor:
        """What :meth:`Generator.soft_labels <dim_data.generator.Generator.soft_labels>` returns for these arguments."""
        return self.generator.soft_labels(labels, serials, seed, pictures)

    def _settle(self) -> None:
        """Begin with no picture, under the weights as they are."""
        self._version = version_of(self.generator)
        self._memory = self._take() if self._shared else None

    def _kept(self) -> Memory | None:
        """What is kept of the generator as it is, or ``None`` where pictures are painted anew each time."""
        if self._version != version_of(self.generator):
            self._settle()
        if self._memory is None and not self._does_without:
            self._memory = self._take()
        return self._memory

    @torch_defaults(painting=True)
    def _take(self) -> Memory | None:
        count, device = self._shape[0], next(self.generator.decoder.parameters()).device
        try:
            if self._shared:
                return Memory(shared_zeros(*self._shape, dtype=torch.uint8), shared_zeros(count, dtype=self._marks))
            rows = torch.empty(self._shape, dtype=torch.uint8, device=device)
            return Memory(rows, torch.zeros(count, dtype=self._marks, device=device))
        except (OSError, RuntimeError):  # of a GPU's memory: torch.OutOfMemoryError
            if not self._optional:
                raise
        self._does_without = True
        return None

    def __getstate__(self) -> dict[str, Any]:
        memory = self._kept() if self._shared and is_spawning() else None
        if memory is not None and not memory.rows.is_shared():
            memory = self._share_memory(memory)
        without = self._does_without or (is_spawning() and self._shared and memory is None)
        return {**self.__dict__, "_memory": memory, "_does_without": without}

    def _share_memory(self, memory: Memory) -> Memory | None:
        wanted, free = math.prod(self._shape) + memory.marks.nbytes, free_shared_memory()
        if self._optional and wanted * SHARE > free:
            return None
        if wanted > free:
            raise MemoryError(
                f"cache=True needs {wanted / 1e6:.0f} MB of shared memory in workers that are spawned, and {SHARED} "
                f"has {free / 1e6:.0f} MB left: enlarge it (docker run --shm-size=1g), use "
                "multiprocessing_context='fork', or leave out cache=True"
            )
        try:
            share_memory(memory.rows, memory.marks)
        except RuntimeError:
            if not self._optional:
                raise
            return None
        return memory

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        memory = self._memory
        if memory is None and not self._does_without:
            self._settle()
        self._version = version_of(self.generator)
