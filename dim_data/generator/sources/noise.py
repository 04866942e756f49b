"""Latents that are noise as it comes: what the decoder of the DiM paper takes."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from dim_data.generator.draws import hash_keys, normal
from dim_data.generator.sources.base import LatentSource

__all__ = ["Noise"]


class Noise(LatentSource):
    """Normal numbers of standard deviation ``config.sigma``, new for each picture."""

    decoder_input: ClassVar[str] = "noise"

    @property
    def summary(self) -> str:
        """What it is, in a few words."""
        return "noise"

    def latents(self, labels: Tensor, serials: Tensor, seed: int) -> Tensor:
        """See :meth:`LatentSource.latents`."""
        noise = normal(hash_keys(seed, labels, serials), self.size) * self.config.sigma
        return noise.unflatten(1, self.latent_shape)
