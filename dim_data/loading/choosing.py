"""Whether pictures are kept, where nobody says so: what fits is kept."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import torch

from dim_data.generator import Generator
from dim_data.loading.cache import PictureCache
from dim_data.loading.keeping import CachingPainter
from dim_data.loading.memory import SHARE
from dim_data.loading.slots import SlotCache

__all__ = ["LIMIT", "CacheChoice", "check_cache", "painter_for"]

CacheChoice: TypeAlias = bool | Literal["auto"]
LIMIT = 512_000_000
"""Bytes of pictures that are kept without being told, at most: 166,000 of 32x32 RGB."""


def check_cache(cache: CacheChoice) -> CacheChoice:
    """``cache``; ``ValueError`` if it is none of the three."""
    if not isinstance(cache, bool) and cache != "auto":
        raise ValueError(f"cache must be 'auto', True or False, got {cache!r}")
    return cache


def painter_for(
    generator: Generator, cache: CacheChoice, *, ipc: int, again: bool, opinions: bool, shared: bool
) -> Generator | CachingPainter:
    """The generator, or what keeps its pictures.

    Args:
        generator: Paints.
        cache: ``"auto"`` keeps pictures that can be asked for again where all of them take :data:`LIMIT` at most, and
            of a GPU's free memory a quarter.
        ipc: Images of each class in an epoch.
        again: Whether an epoch's pictures, or some of them, come again in the next one.
        opinions: Whether soft labels are asked for.
        shared: Whether worker processes are to share what is kept.

    Raises:
        ValueError: ``cache=True`` with pictures that never come again.
    """
    if not check_cache(cache):
        return generator
    optional = cache == "auto"
    room = _room(next(generator.decoder.parameters()).device)
    fits = generator.source.finite and math.prod(PictureCache.shape_for(generator)) <= room
    if fits or not (optional or again):
        return PictureCache(generator, shared=shared, optional=optional)
    if again and (not optional or math.prod(SlotCache.shape_for(generator, ipc, opinions)) <= room):
        return SlotCache(generator, ipc, opinions=opinions, shared=shared, optional=optional)
    return generator


def _room(device: torch.device) -> int:
    if device.type != "cuda":
        return LIMIT
    free: int = torch.cuda.mem_get_info(device)[0]
    return min(LIMIT, free // SHARE)
