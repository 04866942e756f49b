"""The state of a training loop, which can be saved between any two steps, and whether it is of the same one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import torch

from dim_data.images import torch_defaults

__all__ = ["LoopState", "StoppedError", "differences"]

BRIEF = 80


class StoppedError(Exception):
    """The time budget ran out or ``should_stop`` said so. The message says what is saved, and which call resumes it."""


class Stateful(Protocol):
    """Anything with the two methods of a module or an optimizer."""

    def state_dict(self) -> Mapping[str, Any]:
        """Its state as tensors and plain values."""

    def load_state_dict(self, state_dict: Any) -> Any:
        """Restore what :meth:`state_dict` gave."""


class LoopState:
    """Everything a loop changes: named parts, a random state and the number of steps done.

    A loop that starts from a restored state continues as if it had never stopped.

    Args:
        parts: Modules, optimizers and averages by name.
        seed: Of the CPU generator ``rng`` that all draws of the loop come from.

    Attributes:
        collect: Called on all ranks before the state is saved, where each has changed another part of it.
    """

    def __init__(self, parts: Mapping[str, Stateful], seed: int) -> None:
        self.parts: dict[str, Any] = dict(parts)
        self.rng = torch.Generator().manual_seed(seed)
        self.step = 0
        self.collect: Callable[[], object] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values only."""
        parts = {name: part.state_dict() for name, part in self.parts.items()}
        return {"parts": parts, "rng": self.rng.get_state(), "step": self.step}

    @torch_defaults()  # an optimizer copies what it is given
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave; the parts must have been built alike."""
        for name, part in self.parts.items():
            part.load_state_dict(state_dict["parts"][name])
        self.rng.set_state(state_dict["rng"])
        self.step = state_dict["step"]


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """What tells a saved run from the one that is asked for: fields that differ, dotted, with both values.

    Args:
        there: What was saved, in plain values.
        here: What is asked for.

    Returns:
        At most five of them, values shortened; an empty string if nothing differs.
    """
    found = list(_differing(there, here, ""))
    return ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")


def _differing(there: Mapping[str, Any], here: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for key in dict.fromkeys((*here, *there)):
        name, old, new = f"{prefix}{key}", there.get(key), here.get(key)
        if isinstance(old, list) and isinstance(new, list) and len(old) == len(new) and len(repr(old)) > BRIEF:
            old, new = ({str(i): value for i, value in enumerate(values)} for values in (old, new))
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _differing(old, new, f"{name}.")
        elif old != new:
            yield f"{name} ({_brief(old)} there, {_brief(new)} here)"


def _brief(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= BRIEF else f"{text[: BRIEF - 3]}..."
