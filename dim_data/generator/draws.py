"""Counter-based random numbers: a draw is a pure function of integers, whatever the batch it is made in.

``torch.Generator`` yields a stream, so a number depends on all those drawn before it. Here every number is
a hash of its coordinates (splitmix64, Steele et al. 2014), computed for whole batches at once on any device.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["bank_index", "hash_keys", "normal", "permute", "uniform"]


def _signed(value: int) -> int:
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MUL1 = _signed(0xBF58476D1CE4E5B9)
_MUL2 = _signed(0x94D049BB133111EB)


def _shift(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)  # torch shifts int64 arithmetically; this is the logical one


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift(x, 30)) * _MUL1
    x = (x ^ _shift(x, 27)) * _MUL2
    return x ^ _shift(x, 31)


def hash_keys(seed: int, *coordinates: Tensor) -> Tensor:
    """Hash a seed and int64 coordinates of one shape (B,), in order, into int64 keys (B,)."""
    keys = torch.full_like(coordinates[0], _signed(int(seed) * 0x9E3779B97F4A7C15 + 1))  # of NumPy's ints, too
    for coordinate in coordinates:
        keys = _mix((keys ^ coordinate) + _GOLDEN)
    return keys


def uniform(keys: Tensor, count: int) -> Tensor:
    """``count`` float32 numbers in [0, 1) for each of the int64 ``keys`` (B,): shape (B, count)."""
    counters = torch.arange(1, count + 1, device=keys.device, dtype=torch.int64) * _GOLDEN
    return _shift(_mix(keys[:, None] + counters), 40).float() * 2.0**-24


def normal(keys: Tensor, count: int) -> Tensor:
    """``count`` standard normal float32 numbers for each of the ``keys`` (B,): shape (B, count)."""
    half = (count + 1) // 2
    u = uniform(keys, 2 * half)
    radius = torch.sqrt(-2 * torch.log1p(-u[:, :half]))
    angle = 2 * math.pi * u[:, half:]
    return torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], 1)[:, :count]


def permute(positions: Tensor, counts: Tensor, keys: Tensor) -> Tensor:
    """Where each position goes in a pseudo-random permutation of ``range(count)`` chosen by its key.

    A four-round Feistel network over a grid of at least ``count`` cells, walked until it lands inside
    (Black and Rogaway 2002): random access, no table, any mix of counts in one batch.

    Args:
        positions: int64 (B,), each in [0, count).
        counts: int64 (B,), the size of each permutation.
        keys: int64 (B,), equal keys and counts choose equal permutations.

    Returns:
        int64 (B,), each in [0, count).
    """
    rows = counts.double().sqrt().ceil().long()
    columns = (counts + rows - 1) // rows
    out, outside = positions, torch.ones_like(positions, dtype=torch.bool)
    while bool(outside.any()):
        left, right = out // columns, out % columns
        for step in range(4):
            moduli, other = (rows, right) if step % 2 == 0 else (columns, left)
            noise = _shift(_mix((keys + step) ^ (other * _GOLDEN)), 1) % moduli
            if step % 2 == 0:
                left = (left + noise) % rows
            else:
                right = (right + noise) % columns
        out = torch.where(outside, left * columns + right, out)
        outside = out >= counts
    return out


def bank_index(labels: Tensor, serials: Tensor, counts: Tensor, seed: int) -> Tensor:
    """Which row of a bank sorted by class is the ``serials``-th one drawn of each class.

    ``counts[label]`` successive serials visit every row of a class once, in an order new in each round.

    Args:
        labels: int64 (B,).
        serials: int64 (B,), non-negative.
        counts: int64 (num_classes,), rows of each class, all positive.
        seed: Any int.

    Returns:
        int64 (B,), each in [0, counts.sum()).
    """
    sizes = counts[labels]
    rounds = torch.div(serials, sizes, rounding_mode="floor")
    places = permute(serials % sizes, sizes, hash_keys(seed, labels, rounds))
    return (counts.cumsum(0) - counts)[labels] + places
