"""Who asks a dataset for batches: torch itself, or a wrapper that would be passed over."""

from __future__ import annotations

from types import FrameType
from typing import Any

__all__ = ["torch_asker"]

ASKERS = ("torch.utils.data._utils.fetch", "torch.utils.data.dataset")
"""Where torch looks for ``__getitems__``: a ``DataLoader``'s fetcher, and ``Subset``."""


def torch_asker(dataset: Any, caller: FrameType) -> Any:
    """The fetcher or ``Subset`` that asks ``dataset`` itself for something in ``caller``, else ``None``.

    To a dataset, a fetcher and a wrapper that forwards the fetcher's question look the same but for who calls. The
    answer is only ever yes where the caller is torch's own code and holds this very object: whatever is not known, such
    as a wrapper written in C or a later torch, is ``None``, for which items one by one are right and a little slower.
    """
    asker = caller.f_locals.get("self") if caller.f_globals.get("__name__") in ASKERS else None
    return asker if getattr(asker, "dataset", None) is dataset else None
