"""How often each level of brightness occurs in images: all that their mean, deviation and brightest pixel need."""

from __future__ import annotations

import torch
from torch import Tensor

from dim_data.images.rows import ImageRows

__all__ = ["brightest_level", "count_levels", "level_statistics"]


def count_levels(images: Tensor | ImageRows) -> Tensor:
    """How many pixels of images uint8 (N, C, H, W) are of each level, by channels: int64 (C, 256)."""
    counts = torch.zeros(images.shape[1], 256, dtype=torch.int64)
    for part in images.split(256):
        for channel, kept in enumerate(counts):
            kept += torch.bincount(part[:, channel].reshape(-1), minlength=256)
    return counts


def brightest_level(counts: Tensor) -> int:
    """The brightest level that occurs, 0 to 255; 0 if there is no pixel."""
    found = counts.sum(0).nonzero()
    return int(found.max()) if len(found) else 0


def level_statistics(counts: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and sample standard deviation of each channel, of pixels in [0, 1], to four digits.

    Args:
        counts: int64 (C, 256), as :func:`count_levels` gives them.
    """
    levels = torch.arange(256, dtype=torch.float64) / 255
    mean, std = [], []
    for kept in counts.double():
        total = kept.sum()
        centre = (kept * levels).sum() / total
        variance = (kept * (levels - centre).square()).sum() / (total - 1)
        mean.append(round(float(centre), 4))
        std.append(round(max(float(variance.sqrt()), 1e-3), 4))
    return tuple(mean), tuple(std)
