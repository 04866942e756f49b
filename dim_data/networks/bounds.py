"""Whole numbers that a config may name, and how large each may be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, fields
from typing import Any

__all__ = ["bounded", "check_bounds"]


def bounded(default: int, low: int, high: int) -> Any:
    """A field of a frozen dataclass of options: a whole number from ``low`` to ``high``."""
    return field(default=default, metadata={"bounds": (low, high)})


def check_bounds(kind: type, values: Mapping[str, Any], what: str) -> None:
    """Check ``values`` against the fields of the dataclass ``kind``, all made by :func:`bounded`.

    Args:
        kind: The dataclass.
        values: Some or all of its fields by name.
        what: Whose options they are, for messages.

    Raises:
        ValueError: There is no such option, or it is out of bounds.
        TypeError: An option is not an int.
    """
    known = {f.name: f for f in fields(kind)}
    for name, value in values.items():
        if name not in known:
            raise ValueError(f"{what} has no option {name!r}: choose from {sorted(known)}")
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"option {name!r} of {what} must be an int, got {value!r}")
        low, high = known[name].metadata["bounds"]
        if not low <= value <= high:
            raise ValueError(f"option {name!r} of {what} must be {low} to {high}, got {value}")
