"""Labelled pictures that are not read yet, and the array that they are read into.

Where pictures come from is a :class:`Pictures`; where they go is :func:`stack`. Neither knows the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from dim_data.images.specs import ImageSpec

__all__ = ["Pictures", "stack"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Pictures:
    """A source of labelled pictures: what is known of it, and each picture as it is decoded.

    Attributes:
        name: A short identifier of the set.
        stream: Pairs of a picture, uint8 (S, S) or (S, S, 3), and its label: an index into the classes, or a name.
        count: How many, if that is known.
        channels: 1 if all are known to be grey; else 3, or ``None`` where the pictures will tell.
        names: Class names in label order, if they are known.
        known: The facts about a set of that name.
    """

    name: str
    stream: Iterator[tuple[Array, int | str]]
    count: int | None = None
    channels: int | None = None
    names: tuple[str, ...] | None = None
    known: ImageSpec | None = None


def stack(pictures: Pictures) -> tuple[Array, Array]:
    """Read all pictures: uint8 (N, C, S, S), grey ones as RGB where any is in colour, and their labels (N,).

    Raises:
        ValueError: There is none, or some labels are numbers and some are names.
    """
    images: Array | None = None
    labels: list[int | str] = []
    for picture, label in pictures.stream:
        channels = 3 if picture.ndim == 3 else pictures.channels or 1
        if images is None:
            images = np.empty((pictures.count or 256, channels, *picture.shape[:2]), np.uint8)
        elif len(labels) == len(images):
            images.resize((len(images) * 3 // 2 + 1, *images.shape[1:]), refcheck=False)
        if channels > images.shape[1]:
            images = np.repeat(images, 3, axis=1)
        if labels and isinstance(label, str) != isinstance(labels[0], str):
            raise ValueError(f"labels must be all integers or all names, got {labels[0]!r} and {label!r}")
        images[len(labels)] = picture.transpose(2, 0, 1) if picture.ndim == 3 else picture
        labels.append(label)
    if images is None:
        raise ValueError("the data is empty: there is no image in it")
    images.resize((len(labels), *images.shape[1:]), refcheck=False)
    return images, np.asarray(labels)
