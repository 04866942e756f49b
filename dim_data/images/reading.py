"""Reading labelled pictures: into memory, or where they are too many for it, into a file that is mapped."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np

from dim_data.images.caches import map_above
from dim_data.images.keeping import Batches, Kept, OnRead, find_kept, keep, keep_unnamed
from dim_data.images.pictures import Pictures, decoded
from dim_data.images.pixels import Pixels
from dim_data.images.specs import SIZE_RANGE

__all__ = ["read_pictures"]

Array = np.ndarray[Any, Any]


def read_pictures(pictures: Pictures, pixels: Pixels, on_read: OnRead | None = None) -> tuple[Array, Array] | Kept:
    """Read all pictures of a source; grey ones become RGB where any is in colour.

    Args:
        pictures: The source.
        pixels: What decodes its pictures.
        on_read: Called with how many pictures are read, and how many there are, if that is known.

    Returns:
        uint8 (N, C, S, S) and labels (N,), in memory; :class:`Kept` of more than
        :func:`~dim_data.images.caches.map_above` bytes.

    Raises:
        OSError: The cache cannot be written; what was read is kept there, and the same call goes on.
        ValueError: There is no picture, some labels are numbers and some are names, or the source changed meanwhile.
    """
    said = on_read or (lambda done, count: None)
    may_be_large = _bytes(pictures, pixels.frame.side or SIZE_RANGE[1], 3) > map_above()
    identity = None
    if may_be_large and pictures.identity is not None:
        identity = pictures.identity()
        kept = find_kept(identity, pictures, pixels)
        if kept is not None:
            said(len(kept.labels), pictures.count)
            return kept
    channels = pictures.check() if pictures.check else None
    if may_be_large and _is_large(pictures, pixels, channels):
        if identity is not None:
            return keep(identity, pictures, pixels, channels, said)
        return keep_unnamed(pictures, pixels, said, decoded(pictures, channels))
    return _collect(decoded(pictures, channels), pictures, pixels, said)


def _bytes(pictures: Pictures, side: int, channels: int) -> int:
    return (pictures.count or 0) * channels * side * side


def _is_large(pictures: Pictures, pixels: Pixels, channels: int | None) -> bool:
    """Whether the pictures are too many for memory, by the first of them."""
    noted = pixels.notes.state_dict()
    first = next(pictures.stream(0))[0]()
    pixels.notes.load_state_dict(noted)  # it will be decoded again
    return _bytes(pictures, len(first), channels or (3 if first.ndim == 3 else 1)) > map_above()


def _collect(
    batches: Iterator[tuple[Array, list[int | str]]], pictures: Pictures, pixels: Pixels, on_read: OnRead
) -> tuple[Array, Array] | Kept:
    """Read batches into memory, or if they turn out to be too many for it, into a file."""
    limit, count = map_above(), pictures.count
    images, labels = np.empty((0, 1, 0, 0), np.uint8), list[int | str]()
    for batch, found in batches:
        done, end = len(labels), len(labels) + len(found)
        if count is None and end * batch[0].size > limit:
            held: Batches = [(images[:done], labels)] if done else []
            return keep_unnamed(pictures, pixels, on_read, chain(held, [(batch, found)], batches))
        if not done:
            images = np.empty((count or end, *batch.shape[1:]), np.uint8)
        elif end > len(images):
            images.resize((end * 3 // 2, *images.shape[1:]), refcheck=False)
        if batch.shape[1] > images.shape[1]:
            images = np.repeat(images, 3, axis=1)
        images[done:end] = batch
        labels += found
        on_read(end, count)
    if not labels:
        raise ValueError("the data is empty: there is no image in it")
    images.resize((len(labels), *images.shape[1:]), refcheck=False)
    return images, np.asarray(labels)
