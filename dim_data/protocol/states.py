"""The state of a training loop, which can be saved between any two steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch

from dim_data.images import torch_defaults

__all__ = ["LoopState"]


class Stateful(Protocol):
    """Anything with the two methods of a module or an optimiser."""

    def state_dict(self) -> Mapping[str, Any]:
        """Its state as tensors and plain values."""

    def load_state_dict(self, state_dict: Any) -> Any:
        """Restore what :meth:`state_dict` gave."""


class LoopState:
    """Everything a loop changes: named parts, a random state and the number of steps done.

    A loop that starts from a restored state continues as if it had never stopped.

    Args:
        parts: Modules, optimisers and averages by name.
        seed: Of the CPU generator ``rng`` that all draws of the loop come from.
    """

    def __init__(self, parts: Mapping[str, Stateful], seed: int) -> None:
        self.parts: dict[str, Any] = dict(parts)
        self.rng = torch.Generator().manual_seed(seed)
        self.step = 0

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values only."""
        parts = {name: part.state_dict() for name, part in self.parts.items()}
        return {"parts": parts, "rng": self.rng.get_state(), "step": self.step}

    @torch_defaults()  # an optimiser copies what it is given
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave; the parts must have been built alike."""
        for name, part in self.parts.items():
            part.load_state_dict(state_dict["parts"][name])
        self.rng.set_state(state_dict["rng"])
        self.step = state_dict["step"]
