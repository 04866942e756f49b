"""The parts of a set, by what people call them in folders and tables."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["SPLITS", "is_split", "split_of", "which_split"]

SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
AROUND = re.compile(r"(?:seg[_-])?(.*?)(?:[_-]?(?:set|data|images|imgs))?")
"""What folders have besides, as in ``training_set`` and ``seg_test``."""


def split_of(name: str) -> str | None:
    """Which part of a set is called that: a key of :data:`SPLITS`, or ``None``."""
    found = AROUND.fullmatch(name.lower())
    return next((split for split, names in SPLITS.items() if found and found[1] in names), None)


def is_split(name: str) -> bool:
    """Whether that is what a part of a set is called."""
    return split_of(name) is not None


def which_split(found: Sequence[str], split: str, where: str) -> str:
    """The one of ``found`` that people call ``split``.

    Raises:
        ValueError: There is none, or more than one.
    """
    meant = [name for name in found if split_of(name) == split]
    if len(meant) > 1:
        raise ValueError(f"{where} has {len(meant)} splits that may be {split!r}: {', '.join(map(repr, meant))}")
    if not meant:
        raise ValueError(f"{where} has no split {split!r}, only {', '.join(map(repr, found))}")
    return meant[0]
