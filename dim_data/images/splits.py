"""The parts of a set, by what people call them in folders and tables."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["SPLITS", "is_split", "which_split"]

SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}


def is_split(name: str) -> bool:
    """Whether that is what a part of a set is called."""
    return any(name.lower() in names for names in SPLITS.values())


def which_split(found: Sequence[str], split: str, where: str) -> str:
    """The one of ``found`` that people call ``split``.

    Raises:
        ValueError: There is none.
    """
    for name in found:
        if name.lower() in SPLITS[split]:
            return name
    raise ValueError(f"{where} has no split {split!r}, only {', '.join(map(repr, found))}")
