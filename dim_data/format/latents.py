"""Where latents come from: quantised codes, packed into bytes, and noise shaped by a Gaussian of each class's codes."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["fit_gaussian", "pack", "packed_width", "shape_noise", "unpack"]


def _bits(levels: int) -> int:
    return next(bits for bits in (1, 2, 4, 8) if levels <= 1 << bits)


def _shifts(bits: int, device: torch.device) -> Tensor:
    return torch.arange(0, 8, bits, dtype=torch.uint8, device=device)


def packed_width(size: int, levels: int) -> int:
    """Bytes that a code of ``size`` numbers with ``levels`` (2 to 256) values each takes."""
    return -(-size * _bits(levels) // 8)


def pack(latents: Tensor, levels: int) -> Tensor:
    """Round latents in [-1, 1], (B, ...), to ``levels`` values and pack them: uint8 (B, packed).

    A number takes 1, 2, 4 or 8 bits, the fewest that hold ``levels``; the first ones lie in the low bits.
    """
    values = ((latents.flatten(1) + 1) / 2 * (levels - 1)).round().clamp(0, levels - 1).to(torch.uint8)
    bits = _bits(levels)
    values = torch.nn.functional.pad(values, (0, -values.shape[1] % (8 // bits))).unflatten(1, (-1, 8 // bits))
    return (values << _shifts(bits, values.device)).sum(2, dtype=torch.uint8)


def unpack(codes: Tensor, levels: int, size: int) -> Tensor:
    """Invert :func:`pack`: uint8 (B, packed) to float32 (B, size) in [-1, 1]."""
    bits = _bits(levels)
    values = (codes[:, :, None] >> _shifts(bits, codes.device)) & ((1 << bits) - 1)
    return values.flatten(1)[:, :size].float() / (levels - 1) * 2 - 1


def fit_gaussian(latents: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (D,), factor (D, rank) and scale (D,) of latents (N, D): covariance ``factor @ factor.T + diag(scale^2)``.

    All variances are kept, and correlations along the ``rank`` directions of largest variance: a factor analysis
    by principal components.
    """
    latents = latents.double()
    mean = latents.mean(0)
    covariance = (latents - mean).T @ (latents - mean) / len(latents)
    variances, directions = torch.linalg.eigh(covariance)
    factor = directions[:, -rank:] * variances[-rank:].clamp(min=0).sqrt()
    rest = (covariance.diagonal() - factor.square().sum(1)).clamp(min=0)
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
