"""What every source of latents is."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from dim_data.format import GeneratorConfig

__all__ = ["LatentSource"]


class LatentSource(nn.Module, ABC):
    """Where a generator's latents come from; its tensors are those that the source needs.

    A subclass makes its tensors in ``__init__`` and says in :meth:`latents` how they answer. They lie in the
    generator's file under their own names.

    Args:
        config: The generator's.
        latent_shape: Of one latent, as the decoder takes it.

    Attributes:
        decoder_input: What the decoder is built for: ``"noise"``, vectors, or ``"codes"``, maps.
        finite: Latents are rows of a table, so that they come again: pictures may be cached, and soft labels lie
            beside them. Such a source is a :class:`~dim_data.generator.sources.codes.StoredCodes`.
    """

    decoder_input: ClassVar[str] = "codes"
    finite: ClassVar[bool] = False

    def __init__(self, config: GeneratorConfig, latent_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.config = config
        self.latent_shape = latent_shape

    @property
    def size(self) -> int:
        """Numbers in a latent."""
        return math.prod(self.latent_shape)

    @property
    @abstractmethod
    def summary(self) -> str:
        """What it is, in a few words."""

    @abstractmethod
    def latents(self, labels: Tensor, serials: Tensor, seed: int) -> Tensor:
        """The latents of the ``serials``-th pictures of classes ``labels`` under ``seed``: a pure function of these.

        Args:
            labels: int64 (B,), each in [0, num_classes).
            serials: int64 (B,), non-negative.
            seed: Any int.

        Returns:
            float32 (B, *latent_shape); no row depends on another.
        """

    def check(self) -> None:
        """Raise ``ValueError`` if tensors that were read from a file cannot be this source's."""

    def networks(self, latents: Tensor, labels: Tensor) -> dict[str, tuple[nn.Module, list[tuple[Tensor, ...]]]]:
        """The source's networks by name, each with batches of its arguments to round its weights on.

        Args:
            latents: Typical ones, float32 (B, *latent_shape).
            labels: Their classes, int64 (B,).
        """
        return {}

    def tables(self) -> dict[str, Tensor]:
        """Tensors of the source that four bits are enough for, by their names in the file: (..., D), rows of D."""
        return {}
