"""Labels by the names of their classes: what two sets call the same is the same class, wherever it stands."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np

from dim_data.images.specs import MAX_CLASSES, ImageSpec
from dim_data.images.warn import warn_caller

__all__ = ["match_classes", "name_numbers", "number_classes", "say_assumed"]

Array = np.ndarray[Any, Any]

SAID = 10
"""Pairs of classes that a warning lists, at most."""


def number_classes(labels: Array) -> tuple[Array, tuple[str, ...]]:
    """Labels that are class names, (N,), as indices into the sorted names."""
    names, indices = np.unique(labels, return_inverse=True)
    return indices.reshape(labels.shape), tuple(map(str, names))


def name_numbers(present: Sequence[int], spec: ImageSpec) -> tuple[str, ...]:
    """The class names, in label order, of data that have but numbers for them.

    Args:
        present: The labels that occur, in ascending order.
        spec: Where its classes are numbers, and those of all these labels are among them, a label is that number,
            however they are sorted. Else labels count its classes in order.
    """
    numbers = {int(name): name for name in spec.classes if name.isdecimal()}
    if len(numbers) < spec.num_classes or present[-1] >= MAX_CLASSES or not numbers.keys() >= set(present):
        return spec.classes
    apart = next((label for label in present if label < spec.num_classes and int(spec.classes[label]) != label), None)
    # Of classes 0 to n - 1, however sorted, labels are the numbers.
    if apart is not None and present[-1] < spec.num_classes and numbers.keys() != set(range(spec.num_classes)):
        warn_caller(
            f"labels may be the numbers that {spec.name} has for classes, or places among these: took {apart} for the "
            f"class {numbers[apart]!r}, not {spec.classes[apart]!r}; give the labels as strings to be sure"
        )
    return tuple(numbers.get(label, "") for label in range(present[-1] + 1))


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
    places = {_composed(name): index for index, name in enumerate(spec.classes)}
    numbers = {int(name): index for index, name in enumerate(spec.classes) if name.isdecimal()}
    if len(numbers) < count:  # names among them, or two that are the same number
        numbers = {}
    found = [places.get(_composed(name), numbers.get(int(name)) if name.isdecimal() else None) for name in names]
    if len(places) < count and (twice := [names[label] for label in present if _occurs_twice(names[label], spec)]):
        raise ValueError(f"{spec.name} has two classes called {twice[0]!r}: call them differently to tell them apart")
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


def _occurs_twice(name: str, spec: ImageSpec) -> bool:
    return sum(_composed(name) == _composed(other) for other in spec.classes) > 1


def say_assumed(names: Sequence[str], present: Sequence[int], places: Sequence[int], spec: ImageSpec) -> None:
    """Warn of classes that were paired although their names do not say so, as numbers and names.

    Args:
        names: The data's class names, in label order.
        present: The labels that occur.
        places: For each of ``names`` the index into ``spec.classes``.
        spec: What the data's classes were paired with.
    """
    pairs = [(names[label], spec.classes[places[label]]) for label in present]
    assumed = [f"{name!r} for {wanted!r}" for name, wanted in pairs if not _say_the_same(name, wanted)]
    if assumed:
        warn_caller(
            f"either the data or {spec.name} has but numbers for classes, so they were paired in order: took the "
            f"data's {', '.join(assumed[:SAID])}{', ...' if len(assumed) > SAID else ''}; if that is wrong, name the "
            f"classes alike"
        )


def _say_the_same(name: str, other: str) -> bool:
    """Whether the names are the same, or begin with the same number, as ``"7 - seven"`` and ``"7"`` do."""
    first, second = (re.match(r"\d+", text) for text in (name, other))
    same_number = first is not None and second is not None and int(first[0]) == int(second[0])
    return same_number or _composed(name) == _composed(other)


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)  # macOS has NFD
