"""Torch's global random numbers, which fresh weights and dropout draw from, kept apart from the caller's."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

__all__ = ["GlobalRng"]


class GlobalRng:
    """A state of torch's global random numbers that is in force inside ``with``, again and again.

    It begins at ``seed`` and goes on, each time, from where it was left. Outside, the caller's numbers run on as if
    nothing had been drawn.

    Args:
        seed: As for ``torch.manual_seed``; any int.
        device: A GPU whose numbers are kept apart too; those of other devices are not touched, or even started.
    """

    def __init__(self, seed: int, device: torch.device | None = None) -> None:
        self._device = device if device is not None and device.type == "cuda" else None
        self._own: list[Tensor] = []
        self._callers: list[Tensor] = []
        with self:
            torch.default_generator.manual_seed(int(seed))
            if self._device is not None:
                with torch.cuda.device(self._device):
                    torch.cuda.manual_seed(int(seed))

    def __enter__(self) -> GlobalRng:
        self._callers = self._states()
        self._set(self._own)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._own = self._states()
        self._set(self._callers)
        self._callers = []

    def state_dict(self) -> dict[str, Any]:
        """Where it stands: one tensor for each device, the CPU's first."""
        return {"states": self._states() if self._callers else self._own}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go to where :meth:`state_dict` was taken; inside ``with``, at once."""
        self._own = state_dict["states"]
        if self._callers:
            self._set(self._own)

    def _states(self) -> list[Tensor]:
        return [torch.get_rng_state(), *([] if self._device is None else [torch.cuda.get_rng_state(self._device)])]

    def _set(self, states: list[Tensor]) -> None:
        if states:
            torch.set_rng_state(states[0])
        if self._device is not None and len(states) > 1:
            torch.cuda.set_rng_state(states[1], self._device)
