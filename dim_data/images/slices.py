"""Arrays too large to be converted at once: some rows at a time, out of memory or out of an ``.npz`` file."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from dim_data.images.arrays import Arrays, read_arrays, read_labels
from dim_data.images.npz import NpzArray
from dim_data.images.pictures import Picture, Pictures
from dim_data.images.pixels import Pixels, numbers
from dim_data.images.rows import ImageRows

__all__ = ["array_pictures", "as_rows"]

Array = np.ndarray[Any, Any]

CHUNK = 16 << 20
"""Bytes converted at once."""


def as_rows(source: Arrays, pixels: Pixels) -> tuple[ImageRows, Array] | None:
    """Images in memory that need no conversion, shared, and their labels; ``None`` if they need one."""
    if not isinstance(source.images, Tensor | np.ndarray):
        return None
    images = numbers(source.images, "images")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        return None
    if images.shape[2] != images.shape[3] or pixels.frame.size not in (None, images.shape[2]):
        return None
    labels = read_labels(source.labels, len(images))
    read_arrays(images[:1], labels[:1], pixels)  # or say what is wrong with them
    return ImageRows(images), labels


def array_pictures(source: Arrays, pixels: Pixels) -> Pictures:
    """The images of arrays as pictures, converted some at a time.

    Raises:
        ValueError: There are not as many labels as images.
    """
    images, count = source.images, source.images.shape[0]
    labels = read_labels(source.labels, count)
    step = max(1, CHUNK // max(1, math.prod(images.shape[1:])))

    def chunks(start: int) -> Iterator[Any]:
        if isinstance(images, NpzArray):
            return images.rows(start, step)
        return (images[place : place + step] for place in range(start, count, step))

    def stream(start: int) -> Iterator[Picture]:
        for chunk in chunks(start):
            found, told = read_arrays(chunk, labels[start : start + len(chunk)], pixels)
            for image, label in zip(found, told.tolist(), strict=True):
                yield partial(np.asarray, image[0] if len(image) == 1 else image.transpose(1, 2, 0)), label
            start += len(chunk)

    def identity() -> dict[str, Any]:
        stat = images.path.stat()
        facts = {"path": str(images.path.resolve()), "key": images.key, "bytes": stat.st_size, "age": stat.st_mtime_ns}
        return {**facts, **pixels.identity}

    told = identity if isinstance(images, NpzArray) else None
    return Pictures(source.name, stream, count, identity=told, names=source.names, known=source.known)
