"""Some of what there is of each class: which."""

from __future__ import annotations

import torch
from torch import Tensor

from dim_data.generator.painting import Painter

__all__ = ["drawn_rows"]


def drawn_rows(generator: Painter, shares: Tensor, seed: int) -> Tensor:
    """Places in the bank of codes drawn by chance, int64 (N,), class by class.

    Args:
        generator: Stores codes.
        shares: How many of each class, int64 (num_classes,), none above what there is.
        seed: Of the choice; any int.
    """
    labels = torch.repeat_interleave(shares)
    return generator.bank.rows(labels, torch.cat([torch.arange(n) for n in shares.tolist()]).to(labels), seed)
