"""Torch's global random numbers, which fresh weights and dropout draw from, kept apart from the caller's."""

from __future__ import annotations

from types import TracebackType

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
        self._seed, self._device = seed, device if device is not None and device.type == "cuda" else None
        self._own: list[Tensor] | None = None
        self._callers: list[Tensor] = []

    def __enter__(self) -> GlobalRng:
        self._callers = self._states()
        if self._own is None:
            torch.default_generator.manual_seed(self._seed)
            if self._device is not None:
                with torch.cuda.device(self._device):
                    torch.cuda.manual_seed(self._seed)
        else:
            self._set(self._own)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._own = self._states()
        self._set(self._callers)

    def _states(self) -> list[Tensor]:
        return [torch.get_rng_state(), *([] if self._device is None else [torch.cuda.get_rng_state(self._device)])]

    def _set(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        if self._device is not None:
            torch.cuda.set_rng_state(states[1], self._device)
