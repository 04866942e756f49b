"""What has to be said of the pictures of a set once all are read: what was skipped, what was changed."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from typing import Any

from dim_data.images.warn import warn_caller

__all__ = ["Names", "Notes"]

FEW = 3
"""Names that a warning lists, at most."""


class Names:
    """How many things were named, and the first few of them.

    Args:
        by_number: The first are those that come first by name and number, since several threads name them.
    """

    def __init__(self, by_number: bool = False) -> None:
        self.count, self.few, self.by_number = 0, list[str](), by_number
        self._lock = threading.Lock()

    def add(self, name: str) -> None:
        """Name one more."""
        with self._lock:
            self.count += 1
            if self.by_number:
                self.few = sorted([*self.few, name], key=_by_number)[:FEW]
            elif len(self.few) < FEW:
                self.few.append(name)

    def say(self, sentence: str, noun: str) -> None:
        """Warn, if there are any: ``sentence`` has a place for how many, and one for their names."""
        if self.count:
            few = ", ".join(self.few) + (", ..." if self.count > FEW else "")
            count = f"{self.count} {noun}{'s' * (self.count > 1)}"
            warn_caller(sentence.format(count, few))


def _by_number(name: str) -> list[Any]:
    return [(part.isdecimal(), int(part) if part.isdecimal() else part) for part in re.split(r"(\d+)", name) if part]


class Notes:
    """What was noted of pictures as they were decoded.

    Attributes:
        transparent: Those that were laid on white.
        several: Those with more frames than the one that was read.
        deepest: The largest pixel of 16 bits, if any has so many.
        floats: The largest pixel of floating-point pictures, and in which of them it is.
    """

    def __init__(self) -> None:
        self.transparent, self.several = Names(by_number=True), Names(by_number=True)
        self.deepest: int | None = None
        self.floats: tuple[float, str] = (0.0, "")

    def state_dict(self) -> dict[str, Any]:
        """All of it, JSON-ready."""
        names = {name: [kept.count, kept.few] for name, kept in self._names.items()}
        return {**names, "deepest": self.deepest, "floats": list(self.floats)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Stand where :meth:`state_dict` was taken."""
        for name, kept in self._names.items():
            kept.count, kept.few = int(state[name][0]), list(map(str, state[name][1]))
        self.deepest = state["deepest"]
        self.floats = float(state["floats"][0]), str(state["floats"][1])

    @property
    def _names(self) -> dict[str, Names]:
        return {"transparent": self.transparent, "several": self.several}
