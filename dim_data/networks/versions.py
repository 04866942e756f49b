"""Whether a network's weights are still those that something was computed with."""

from __future__ import annotations

from torch import nn

__all__ = ["version_of"]


def version_of(module: nn.Module) -> list[tuple[int, int | None]]:
    """What changes, within a process, when a parameter or buffer of ``module`` is written to or replaced.

    As torch counts it: what is written through ``.data`` or NumPy, and into tensors of inference mode, goes unseen.
    """
    return [
        (tensor.data_ptr(), None if tensor.is_inference() else tensor._version)
        for part in module.modules()
        for held in (part._parameters, part._buffers)
        for tensor in held.values()
        if tensor is not None
    ]
