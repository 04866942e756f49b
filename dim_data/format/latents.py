"""Codes on disk: latents rounded to a few levels and packed into bytes."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["from_numbers", "pack", "packed_width", "to_numbers", "unpack"]


def to_numbers(latents: Tensor, levels: int) -> Tensor:
    """Latents in [-1, 1] to the whole numbers below ``levels`` that they are stored as: uint8 of the same shape."""
    return ((latents + 1) / 2 * (levels - 1)).round().clamp(0, levels - 1).to(torch.uint8)


def from_numbers(numbers: Tensor, levels: int) -> Tensor:
    """Invert :func:`to_numbers`: whole numbers, in any format, to float32 in [-1, 1]."""
    return numbers.float() / (levels - 1) * 2 - 1


def _bits(levels: int) -> int:
    if not 2 <= levels <= 256:
        raise ValueError(f"a number of a code takes 2 to 256 values, got levels={levels}")
    return next(bits for bits in (1, 2, 4, 8) if levels <= 1 << bits)


def _shifts(bits: int, device: torch.device) -> Tensor:
    return torch.arange(0, 8, bits, dtype=torch.uint8, device=device)


def packed_width(size: int, levels: int) -> int:
    """Bytes that a code of ``size`` numbers with ``levels`` (2 to 256) values each takes.

    Raises:
        ValueError: ``levels`` is out of range.
    """
    return -(-size * _bits(levels) // 8)


def pack(latents: Tensor, levels: int) -> Tensor:
    """Round latents in [-1, 1], (B, ...), to ``levels`` values and pack them: uint8 (B, packed).

    A number takes 1, 2, 4 or 8 bits, the fewest that hold ``levels``; the first ones lie in the low bits.
    """
    values = to_numbers(latents.flatten(1), levels)
    bits = _bits(levels)
    values = torch.nn.functional.pad(values, (0, -values.shape[1] % (8 // bits))).unflatten(1, (-1, 8 // bits))
    return (values << _shifts(bits, values.device)).sum(2, dtype=torch.uint8)


def unpack(codes: Tensor, levels: int, size: int) -> Tensor:
    """Invert :func:`pack`: uint8 (B, packed) to float32 (B, size) in [-1, 1]."""
    bits = _bits(levels)
    values = (codes[:, :, None] >> _shifts(bits, codes.device)) & ((1 << bits) - 1)
    return from_numbers(values.flatten(1)[:, :size], levels)
