"""Pictures kept by their places in an epoch, for those that come again in the next one."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dim_data.generator import Generator, hash_keys
from dim_data.images import torch_defaults
from dim_data.loading.keeping import CachingPainter, Memory

__all__ = ["SlotCache"]

WORD = 8  # bytes of a number in a check sum


class SlotCache(CachingPainter):
    """Synthesize as a generator does, bit for bit, and keep an epoch: ``ipc`` pictures of each class.

    The picture of a serial takes the place of the one ``ipc`` serials before it. Each lies beside a check sum of what
    it shows and which it is, so that processes may write without a lock: a row that two wrote at once, or that is
    another picture by now, is painted again.

    Args:
        generator: Any.
        ipc: Places for each class.
        opinions: Keep soft labels too, where a teacher gives them.
        shared: See :class:`~dim_data.loading.PictureCache`.
        optional: See :class:`~dim_data.loading.PictureCache`.
    """

    def __init__(
        self, generator: Generator, ipc: int, *, opinions: bool = False, shared: bool = False, optional: bool = False
    ) -> None:
        self._ipc, self._opinions = ipc, opinions and not generator.source.finite
        shape = self.shape_for(generator, ipc, opinions)
        super().__init__(generator, shape, torch.int64, shared=shared, optional=optional)

    @staticmethod
    def shape_for(generator: Generator, ipc: int, opinions: bool = False) -> tuple[int, int]:
        """Pictures it keeps at most, and the bytes of each."""
        spec = generator.spec
        width = math.prod((spec.channels, spec.size, spec.size))
        width += 4 * spec.num_classes if opinions and not generator.source.finite else 0
        return ipc * spec.num_classes, -(-width // WORD) * WORD

    @torch_defaults(painting=True)
    def synthesize(self, labels: Tensor, serials: Tensor, seed: int = 0) -> Tensor:
        """What :meth:`Generator.synthesize <dim_data.generator.Generator.synthesize>` returns for these arguments."""
        memory = self._kept()
        if memory is None:
            return self.generator.synthesize(labels, serials, seed)
        rows = self._rows(memory, labels, serials, seed)
        return rows[:, : math.prod(self._picture)].unflatten(1, self._picture).contiguous()

    @torch_defaults(painting=True)
    def soft_labels(self, labels: Tensor, serials: Tensor, seed: int = 0, pictures: Tensor | None = None) -> Tensor:
        """What :meth:`Generator.soft_labels <dim_data.generator.Generator.soft_labels>` returns for these arguments."""
        memory = self._kept()
        if memory is None or not self._opinions:
            return self.generator.soft_labels(labels, serials, seed, pictures)
        rows, start = self._rows(memory, labels, serials, seed), math.prod(self._picture)
        return rows[:, start : start + 4 * self.generator.spec.num_classes].clone().view(torch.float32)

    def _rows(self, memory: Memory, labels: Tensor, serials: Tensor, seed: int) -> Tensor:
        labels = self.generator.check_labels(labels)
        serials = serials.to(labels.device)
        slots, stamps = serials % self._ipc * self.generator.spec.num_classes + labels, hash_keys(seed, labels, serials)
        rows = memory.rows[slots]
        missing = (memory.marks[slots] != _sums(rows, stamps)).nonzero()[:, 0]
        if len(missing):
            several, where = stamps[missing].unique(return_inverse=True)
            each = torch.empty_like(several).scatter_(0, where, missing)  # one of those that are the same picture
            painted = self._paint(labels[each], serials[each], seed)
            rows[missing] = painted[where]
            memory.rows[slots[each]] = painted
            memory.marks[slots[each]] = _sums(painted, stamps[each])
        return rows

    def _paint(self, labels: Tensor, serials: Tensor, seed: int) -> Tensor:
        pictures = self.generator.synthesize(labels, serials, seed)
        parts = [pictures.flatten(1)]
        if self._opinions:
            parts.append(self.generator.soft_labels(labels, serials, seed, pictures).contiguous().view(torch.uint8))
        rest = self._shape[1] - sum(part.shape[1] for part in parts)
        return torch.cat([*parts, pictures.new_zeros(len(pictures), rest)], 1)


def _sums(rows: Tensor, stamps: Tensor) -> Tensor:
    """Check sums, int64 (B,), of uint8 rows (B, width) that are the pictures ``stamps`` (B,)."""
    words = rows.view(torch.int64)
    odd = hash_keys(0, torch.arange(words.shape[1], device=rows.device)) | 1
    return (words * odd).sum(1) + stamps
