"""Checks of one field of a configuration each, or of one argument; what they raise names it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

__all__ = ["check_choice", "check_int", "check_names", "check_number", "is_int", "plain"]


def plain(value: Any) -> Any:
    """A number of NumPy's as Python's, which JSON can hold; anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def is_int(value: Any, low: int) -> bool:
    """Whether ``value`` is an int of at least ``low``, and no bool."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def check_int(name: str, value: Any, low: int) -> None:
    """Raise ``ValueError`` unless ``value`` is an int of at least ``low``."""
    if not is_int(value, low):
        wanted = "a positive int" if low == 1 else f"an int of at least {low}"
        raise ValueError(f"{name} must be {wanted}, got {value!r}")


def check_number(name: str, value: Any, interval: str) -> None:
    """Raise ``ValueError`` unless ``value`` is a number in ``interval``, such as ``"[0, 1)"``: open on the right."""
    low, high = (float(end) for end in interval[1:-1].split(","))
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not low <= value < high or (value == low and interval[0] == "("):
        raise ValueError(f"{name} must be a number in {interval}, got {value!r}")


def check_names(name: str, values: Any, known: Collection[str]) -> None:
    """Raise ``ValueError`` unless ``values`` is a tuple of names out of ``known``."""
    if not isinstance(values, tuple):
        raise ValueError(f"{name} must be a tuple, got {values!r}")
    for value in values:
        if value not in known:
            raise ValueError(f"{name} has an unknown name {value!r}: choose from {sorted(known)}")


def check_choice(name: str, value: Any, known: Collection[str]) -> None:
    """Raise ``ValueError`` unless ``value`` is one of ``known``."""
    if value not in known:
        raise ValueError(f"{name} must be {' or '.join(map(repr, known))}, got {value!r}")
