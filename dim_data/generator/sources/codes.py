"""Latents that are stored: one code for each training image that a generator remembers."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from dim_data.format import GeneratorConfig, pack, packed_width, unpack
from dim_data.generator.draws import bank_index
from dim_data.generator.sources.base import LatentSource
from dim_data.networks import parse_options

__all__ = ["StoredCodes"]


class StoredCodes(LatentSource):
    """A bank of quantized latents, sorted by class.

    Attributes:
        codes: uint8 (N, packed), the bank; see :func:`~dim_data.format.pack`.
        counts: int64 (num_classes,), codes of each class.
        soft: uint8 (N, num_classes), what a teacher says of each picture, as shares of any sum; with soft labels only.
        levels: Values that each number of a code may have.
    """

    finite: ClassVar[bool] = True
    codes: Tensor
    counts: Tensor
    soft: Tensor

    def __init__(self, config: GeneratorConfig, latent_shape: tuple[int, ...]) -> None:
        super().__init__(config, latent_shape)
        self.levels: int = parse_options(config.architecture, config.options).code_levels  # type: ignore[union-attr]
        width, classes = packed_width(self.size, self.levels), config.spec.num_classes
        self.register_buffer("codes", torch.zeros(config.codes, width, dtype=torch.uint8))
        self.register_buffer("counts", torch.zeros(classes, dtype=torch.int64))
        if config.soft_labels:
            self.register_buffer("soft", torch.zeros(config.codes, classes, dtype=torch.uint8))

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def summary(self) -> str:
        """What it is, in a few words."""
        return f"codes, {len(self)} stored"

    @property
    def labels(self) -> Tensor:
        """Class of each code: int64 (N,)."""
        return torch.repeat_interleave(self.counts, output_size=len(self))

    def labels_of(self, rows: Tensor) -> Tensor:
        """Classes of the codes at ``rows``, int64 (B,): int64 (B,). The bank may be too large for :attr:`labels`."""
        return torch.searchsorted(self.counts.cumsum(0), rows, right=True)

    def pack(self, latents: Tensor) -> Tensor:
        """Quantise latents in [-1, 1], (B, *latent_shape), to codes, uint8 (B, packed)."""
        return pack(latents, self.levels)

    def unpack(self, codes: Tensor) -> Tensor:
        """Invert :meth:`pack`: uint8 (B, packed) to float32 latents (B, *latent_shape)."""
        return unpack(codes, self.levels, self.size).unflatten(1, self.latent_shape)

    def rows(self, labels: Tensor, serials: Tensor, seed: int) -> Tensor:
        """Places in the bank of the ``serials``-th pictures of classes ``labels``: int64 (B,), on its device.

        ``counts[label]`` successive serials visit every code of a class once, in an order that is new in each
        round. Worked out where ``labels`` are. For many at once that is best the CPU: a GPU would have to be waited
        for.
        """
        found = bank_index(labels, serials.to(labels.device), self.counts.to(labels.device), seed)
        return found.to(self.codes.device)

    def latents(self, labels: Tensor, serials: Tensor, seed: int) -> Tensor:
        """See :meth:`LatentSource.latents` and :meth:`rows`."""
        return self.unpack(self.codes[self.rows(labels, serials, seed)])

    def opinions(self, rows: Tensor) -> Tensor:
        """The soft labels at ``rows``, int64 (B,): float32 (B, num_classes), each row summing to 1."""
        stored = self.soft[rows].float()
        return stored / stored.sum(1, keepdim=True)

    def check(self) -> None:
        """See :meth:`LatentSource.check`."""
        counts, total = self.counts, len(self)
        # Each is bounded too: their sum may overflow.
        if int(counts.min()) < 1 or int(counts.max()) > total or int(counts.sum()) != total:
            raise ValueError(f"'counts' must be positive and sum to {total}, the number of codes")
        if self.config.soft_labels and not bool(self.soft.any(1).all()):
            raise ValueError("a row of 'soft' gives no class any probability")
