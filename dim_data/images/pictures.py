"""Labelled pictures that are not read yet, and their decoding, a batch at a time.

Where pictures come from is a :class:`Pictures`; where they go is a matter of ``reading``. Neither knows the other.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from dim_data.images.specs import ImageSpec

__all__ = ["Picture", "Pictures", "decoded"]

Array = np.ndarray[Any, Any]
Picture = tuple[Callable[[], Array], int | str]
"""What decodes a picture, to uint8 (S, S) or (S, S, 3), and its label: an index into the classes, or a name."""

BATCH = 256
MOST_THREADS = 16


@dataclass(frozen=True)
class Pictures:
    """A source of labelled pictures, and what is known of it before any is decoded.

    Attributes:
        name: A short identifier of the set.
        stream: The pictures from the one at an index on. Where ``count`` is not known, they can be had once, from 0 on.
        count: How many, if that is known.
        check: Looks at all pictures before any is decoded, and says whether they are grey (1 channel) or not (3);
            ``None`` where the pictures will tell.
        identity: What tells the source from every other, and from itself once it has changed, in plain values; ``None``
            where nothing can.
        parallel: Whether pictures may be decoded in several threads at once.
        names: Class names in label order, if they are known.
        known: The facts about a set of that name.
    """

    name: str
    stream: Callable[[int], Iterator[Picture]]
    count: int | None = None
    check: Callable[[], int] | None = None
    identity: Callable[[], Mapping[str, Any]] | None = None
    parallel: bool = False
    names: tuple[str, ...] | None = None
    known: ImageSpec | None = None


def decoded(
    pictures: Pictures, channels: int | None, start: int = 0, label: int | str | None = None
) -> Iterator[tuple[Array, list[int | str]]]:
    """Batches of pictures, uint8 (B, C, S, S), and their labels. One with a picture in colour is in three channels.

    Args:
        pictures: The source.
        channels: The least that all have.
        start: The first to decode.
        label: That of one before it.

    Raises:
        ValueError: Some labels are numbers and some are names.
    """
    stream = pictures.stream(start)
    with ThreadPoolExecutor(_threads() if pictures.parallel else 1) as pool:
        each: Callable[..., Any] = pool.map if pictures.parallel else map
        while batch := list(islice(stream, BATCH)):
            labels = [found for _, found in batch]
            label = labels[0] if label is None else label
            for found in labels:
                if isinstance(found, str) != isinstance(label, str):
                    raise ValueError(f"labels must be all integers or all names, got {label!r} and {found!r}")
            found_pictures = list(each(_call, [decode for decode, _ in batch]))
            width = max(channels or 1, *(3 if picture.ndim == 3 else 1 for picture in found_pictures))
            images = np.empty((len(batch), width, *found_pictures[0].shape[:2]), np.uint8)
            for place, picture in zip(images, found_pictures, strict=True):
                place[...] = picture.transpose(2, 0, 1) if picture.ndim == 3 else picture
            yield images, labels


def _call(decode: Callable[[], Array]) -> Array:
    return decode()


def _threads() -> int:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MOST_THREADS, count)
