"""Labels by the names of their classes: what two sets call the same is the same class, wherever it stands."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np

from dim_data.images.specs import ImageSpec

__all__ = ["match_classes", "number_classes"]

Array = np.ndarray[Any, Any]


def number_classes(labels: Array) -> tuple[Array, tuple[str, ...]]:
    """Labels that are class names, (N,), as indices into the sorted names."""
    names, indices = np.unique(labels, return_inverse=True)
    return indices.reshape(labels.shape), tuple(map(str, names))


def match_classes(names: Sequence[str], present: Sequence[int], spec: ImageSpec) -> list[int]:
    """Where a spec has the classes of some data.

    Args:
        names: The data's class names, in label order.
        present: The labels that occur. Classes without an image may have any name.
        spec: Its classes are the wanted ones; those that the data lacks do no harm.

    Returns:
        For each of ``names`` the index into ``spec.classes``, 0 where no image needs it. Names decide, except that
        names of classes count in order where the spec has but numbers, and numbers count where it has names.

    Raises:
        ValueError: The spec lacks the name of a label that occurs.
    """
    count = spec.num_classes
    if tuple(names) == spec.classes:
        return list(range(count))
    places = {unicodedata.normalize("NFC", name): index for index, name in enumerate(spec.classes)}  # macOS has NFD
    found = [places.get(unicodedata.normalize("NFC", name)) for name in names]
    lacking = [names[label] for label in present if found[label] is None]
    if not lacking:
        return [index or 0 for index in found]
    if len(lacking) == len(present):
        if all(name.isdecimal() and int(name) < count for name in names):
            return [int(name) for name in names]
        if spec.classes == tuple(map(str, range(count))) and len(names) == count:
            return list(range(count))
    raise ValueError(
        f"{spec.name} has no class {', '.join(map(repr, lacking[:5]))}{', ...' if len(lacking) > 5 else ''}; its "
        f"{count} classes are {', '.join(map(repr, spec.classes[:10]))}{', ...' if count > 10 else ''}: rename the "
        f"data's, or if they are the same in the same order, give dataclasses.replace(load_real(data), spec=spec)"
    )
