"""Latents that are noise, shaped into codes by a Gaussian for each class."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from dim_data.format import GeneratorConfig
from dim_data.generator.draws import hash_keys, normal
from dim_data.generator.sources.base import LatentSource

__all__ = ["Gaussian", "fit_gaussian", "shape_noise"]


class Gaussian(LatentSource):
    """Noise with the means and correlations of each class's codes, along ``config.rank`` directions.

    Attributes:
        means: float32 (num_classes, D), where D is the size of a latent.
        factors: float32 (num_classes, D, rank).
        scales: float32 (num_classes, D).
    """

    means: Tensor
    factors: Tensor
    scales: Tensor

    def __init__(self, config: GeneratorConfig, latent_shape: tuple[int, ...]) -> None:
        super().__init__(config, latent_shape)
        classes = config.spec.num_classes
        self.register_buffer("means", torch.zeros(classes, self.size))
        self.register_buffer("factors", torch.zeros(classes, self.size, config.rank))
        self.register_buffer("scales", torch.zeros(classes, self.size))

    @property
    def summary(self) -> str:
        """What it is, in a few words."""
        return f"noise, shaped by a Gaussian of rank {self.config.rank} for each class"

    def latents(self, labels: Tensor, serials: Tensor, seed: int) -> Tensor:
        """See :meth:`LatentSource.latents`; within [-1, 1]."""
        noise = normal(hash_keys(seed, labels, serials), self.config.rank + self.size) * self.config.sigma
        means, factors, scales = (x.float() for x in (self.means, self.factors, self.scales))
        return shape_noise(noise, means, factors, scales, labels).unflatten(1, self.latent_shape)


def fit_gaussian(latents: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (D,), factor (D, rank) and scale (D,) of latents (N, D): covariance ``factor @ factor.T + diag(scale^2)``.

    All variances are kept, and correlations along the ``rank`` directions of largest variance: a factor analysis
    by principal components.
    """
    latents = latents.double()
    mean = latents.mean(0)
    count, size = latents.shape
    if count < size:  # few rows span few directions, and a covariance of many numbers takes long
        centred = (latents - mean) / math.sqrt(count)
        _, deviations, directions = torch.linalg.svd(centred, full_matrices=False)
        kept = (deviations[:rank, None] * directions[:rank]).flip(0).T
        factor = F.pad(kept, (rank - kept.shape[1], 0))  # the largest last, as below
        total = centred.square().sum(0)
    else:
        covariance = (latents - mean).T @ (latents - mean) / count
        variances, directions = torch.linalg.eigh(covariance)
        factor = directions[:, -rank:] * variances[-rank:].clamp(min=0).sqrt()
        total = covariance.diagonal()
    rest = (total - factor.square().sum(1)).clamp(min=0)
    return mean, factor, rest.sqrt()


def shape_noise(noise: Tensor, means: Tensor, factors: Tensor, scales: Tensor, labels: Tensor) -> Tensor:
    """Latents ``mean + factor @ noise[:rank] + scale * noise[rank:]`` of each class, within [-1, 1].

    Args:
        noise: Standard normal (B, rank + D).
        means: (classes, D).
        factors: (classes, D, rank).
        scales: (classes, D).
        labels: int64 (B,).

    Returns:
        float32 (B, D); a row does not depend on the others.
    """
    rank, rows = factors.shape[2], []
    # A row is summed the same way in whatever batch it is; a matrix product need not be. 64 bound the memory.
    for z, y in zip(noise.split(64), labels.split(64), strict=True):
        along = (factors[y] * z[:, None, :rank]).sum(2)
        rows.append((means[y] + along + scales[y] * z[:, rank:]).clamp(-1, 1))
    return torch.cat([*rows, noise[:0, rank:]])
