"""Some of what there is of each class: how many, and which."""

from __future__ import annotations

import torch
from torch import Tensor

from dim_data.generator.painting import Painter

__all__ = ["class_shares", "drawn_rows"]


def class_shares(counts: Tensor, count: int) -> Tensor:
    """How many to keep of each class, int64 (num_classes,): its share, rounded down, but at least one.

    Where these ones make them more than ``count``, the largest shares are cut until they are not.

    Args:
        counts: How many there are of each class, int64 (num_classes,).
        count: How many to keep at most, in [num_classes, counts.sum()].
    """
    shares = (counts * count // counts.sum()).clamp(min=1)
    for _ in range(int(shares.sum()) - count):
        shares[shares.argmax()] -= 1
    return shares


def drawn_rows(generator: Painter, shares: Tensor, seed: int) -> Tensor:
    """Places in the bank of codes drawn by chance, int64 (N,), class by class.

    Args:
        generator: Stores codes.
        shares: How many of each class, int64 (num_classes,), none above what there is.
        seed: Of the choice; any int.
    """
    labels = torch.repeat_interleave(shares)
    return generator.bank.rows(labels, torch.cat([torch.arange(n) for n in shares.tolist()]).to(labels), seed)
