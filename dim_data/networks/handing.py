"""Tensors on their way to a process that is being spawned, which is to share them."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from multiprocessing.context import get_spawning_popen
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

__all__ = ["is_spawning", "share_as_one_buffer", "share_memory"]

ALIGNED = 64
"""Bytes of which the start of each tensor in a piece is a multiple."""


def is_spawning() -> bool:
    """Whether what is pickled now goes to a process that is being spawned, which shares what it is handed."""
    return get_spawning_popen() is not None


def share_memory(*tensors: Tensor) -> None:
    """Move ``tensors`` to where a process that is being spawned can share them: ``/dev/shm`` on Linux.

    Raises:
        RuntimeError: There is no room, or no right, for that.
    """
    for tensor in tensors:
        try:
            tensor.share_memory_()
        except (OSError, RuntimeError) as error:
            raise RuntimeError(
                f"a worker that is spawned needs shared memory, and there is none to be had ({error}): enlarge it "
                "(docker run --shm-size=1g), or use num_workers=0 or multiprocessing_context='fork', which need none"
            ) from error


class _Part:
    """Stands for a tensor that lies in a piece, and becomes it where it arrives."""

    def __init__(self, piece: Tensor, start: int, tensor: Tensor) -> None:
        self._found = piece, start, tensor.dtype, tensor.shape, _dense(tensor).stride(), type(tensor)
        self._requires_grad = tensor.requires_grad

    def __reduce__(self) -> tuple[Any, ...]:
        return _part_of, (*self._found, self._requires_grad)


def _part_of(
    piece: Tensor,
    start: int,
    dtype: torch.dtype,
    shape: torch.Size,
    stride: tuple[int, ...],
    kind: type[Tensor],
    requires_grad: bool,
) -> Tensor:
    flat = piece[start : start + shape.numel() * dtype.itemsize].view(dtype)
    tensor = flat.as_strided(shape, stride)
    return nn.Parameter(tensor, requires_grad) if kind is nn.Parameter else tensor


@dataclass
class _Handed:
    """What a process was handed last.

    Attributes:
        marks: Each tensor, where it lay, and how often it had been written to.
        piece: The bytes of all of them.
        state: What was pickled. A tensor in it that is no part of the piece must outlive the start of the process.
    """

    marks: list[tuple[Tensor, int, int | None]]
    piece: Tensor
    state: dict[str, Any] | None = None

    def is_of(self, marks: list[tuple[Tensor, int, int | None]]) -> bool:
        """Whether nothing has changed since."""
        pairs = zip(self.marks, marks, strict=False)
        return len(self.marks) == len(marks) and all(a[0] is b[0] and a[1:] == b[1:] for a, b in pairs)


_HANDED: WeakKeyDictionary[nn.Module, _Handed] = WeakKeyDictionary()


def share_as_one_buffer(module: nn.Module, state: Mapping[str, Any], more: Iterable[Tensor] = ()) -> dict[str, Any]:
    """The ``state`` that ``module`` is pickled by, its tensors of the CPU being parts of one, which processes share.

    Each tensor of its own takes a file descriptor, and ``forkserver`` hands on no more than 255 of these. While the
    module lives, the next process shares the same memory if no tensor has changed.

    Args:
        module: Whose parameters and buffers they are.
        state: See ``__getstate__``.
        more: Other tensors that it holds.

    Raises:
        RuntimeError: There is no shared memory.
    """
    held = (t for part in module.modules() for found in (part._parameters, part._buffers) for t in found.values())
    tensors = list({id(t): t for t in (*held, *more) if t is not None and _can_be_a_part(t)}.values())
    starts = list(accumulate((-(-t.nbytes // ALIGNED) * ALIGNED for t in tensors), initial=0))
    marks = [(t, t.data_ptr(), None if t.is_inference() else t._version) for t in tensors]
    handed = _HANDED.get(module)
    if handed is None or not handed.is_of(marks):
        piece = torch.zeros(max(1, starts[-1]), dtype=torch.uint8, device="cpu")
        for start, tensor in zip(starts, tensors, strict=False):
            flat = _dense(tensor.detach()).as_strided((tensor.numel(),), (1,)).view(torch.uint8)
            piece[start : start + len(flat)] = flat
        share_memory(piece)
        handed = _HANDED[module] = _Handed(marks, piece)
    parts: dict[int, Any] = {id(t): _Part(handed.piece, s, t) for s, t in zip(starts, tensors, strict=False)}
    handed.state = copy.deepcopy(dict(state), parts)
    return handed.state


def _can_be_a_part(tensor: Tensor) -> bool:
    return type(tensor) in (Tensor, nn.Parameter) and tensor.device.type == "cpu" and tensor.layout == torch.strided


def _dense(tensor: Tensor) -> Tensor:
    """The tensor itself if its numbers lie one beside the other in some order, else a copy of it that does."""
    channels_last = tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return tensor if channels_last or tensor.is_contiguous() else tensor.contiguous()
