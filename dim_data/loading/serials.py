"""Which picture stands at an index in an epoch: arithmetic, not history."""

from __future__ import annotations

from numbers import Real
from typing import Any

import torch
from torch import Tensor

from dim_data.generator import Generator

__all__ = ["check_refresh", "serials_at"]


def check_refresh(generator: Generator, refresh: Any, fixed: bool = False) -> float:
    """``refresh`` as a float.

    Raises:
        TypeError: It is no number.
        ValueError: It is outside (0, 1], or below 1 with stored codes or with a set that is fixed.
    """
    if not isinstance(refresh, Real) or isinstance(refresh, bool):
        raise TypeError(f"refresh must be a number, got {refresh!r}")
    refresh = float(refresh)
    if not 0 < refresh <= 1:
        raise ValueError(f"refresh must lie in (0, 1], the share of an epoch that is new in the next, got {refresh!r}")
    if refresh < 1 and generator.source.finite:
        raise ValueError(
            f"refresh={refresh} keeps pictures from noise for some passes, and this generator stores codes: leave it "
            "out, for each of their pictures is made once and kept (cache='auto')"
        )
    if refresh < 1 and fixed:
        raise ValueError(f"fixed=True keeps all pictures for ever, and refresh={refresh} some: give one of them")
    return refresh


def serials_at(indices: Tensor, epochs: Tensor, *, ipc: int, classes: int, refresh: float = 1.0) -> Tensor:
    """Serials of the pictures at ``indices`` in ``epochs``: int64 (B,).

    An epoch shows ``ipc`` successive serials of each class. From one to the next they move on by ``refresh * ipc``, on
    the average where that is no whole number; a serial stays at its index as long as it is shown.

    Args:
        indices: int64 (B,); index ``i`` is of class ``i % classes``.
        epochs: int64 (B,).
        ipc: Images of each class in an epoch.
        classes: How many there are.
        refresh: In (0, 1].
    """
    slots = torch.div(indices, classes, rounding_mode="floor")
    if refresh == 1:
        return epochs * ipc + slots
    late = (indices % classes + 0.5).double() / classes  # classes whose steps are no whole numbers take turns
    first = (epochs.double() * (refresh * ipc) + late).floor().long()
    return first + (slots - first) % ipc
