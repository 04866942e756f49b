"""Tensors on their way to a process that is being spawned, which is to share them."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import get_spawning_popen
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

__all__ = ["hand_on", "in_one_piece", "is_spawning"]

ALIGNED = 64
Reduced = tuple[Any, ...]
"""What ``__reduce_ex__`` returns: a function, its arguments, a state."""


def is_spawning() -> bool:
    """Whether what is pickled now goes to a process that is being spawned, which shares what it is handed."""
    return get_spawning_popen() is not None


def hand_on(*tensors: Tensor) -> None:
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


@dataclass(frozen=True)
class _Place:
    """Where in the piece a tensor lies, and as what."""

    start: int
    dtype: torch.dtype
    shape: torch.Size
    stride: tuple[int, ...]
    kind: type[Tensor]
    requires_grad: bool

    def find(self, piece: Tensor) -> Tensor:
        """The tensor, in the memory of ``piece``."""
        count = self.shape.numel() * self.dtype.itemsize
        tensor = piece[self.start : self.start + count].view(self.dtype).as_strided(self.shape, self.stride)
        return nn.Parameter(tensor, self.requires_grad) if self.kind is nn.Parameter else tensor


class _Packer(pickle.Pickler):
    """Pickles all but the tensors, of which it notes the places."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, pickle.DEFAULT_PROTOCOL)
        self.tensors: list[Tensor] = []
        self.places: list[_Place] = []
        self._known: dict[int, int] = {}
        self.size = 0

    def persistent_id(self, obj: Any) -> int | None:
        """The number of a tensor; ``None`` for all else."""
        if type(obj) not in (Tensor, nn.Parameter) or obj.device.type != "cpu" or obj.layout != torch.strided:
            return None
        if id(obj) not in self._known:
            self._known[id(obj)] = len(self.tensors)
            dense = _dense(obj)
            made = (obj.dtype, obj.shape, dense.stride(), type(obj), obj.requires_grad)
            self.tensors.append(obj)
            self.places.append(_Place(self.size, *made))
            self.size += -(-dense.nbytes // ALIGNED) * ALIGNED
        return self._known[id(obj)]

    def piece(self) -> Tensor:
        """The bytes of all tensors."""
        piece = torch.zeros(max(1, self.size), dtype=torch.uint8, device="cpu")
        for tensor, place in zip(self.tensors, self.places, strict=True):
            flat = _dense(tensor.detach()).as_strided((tensor.numel(),), (1,)).view(torch.uint8)
            piece[place.start : place.start + len(flat)] = flat
        return piece


class _Unpacker(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, tensors: list[Tensor]) -> None:
        super().__init__(file)
        self._tensors = tensors

    def persistent_load(self, pid: int) -> Tensor:
        """The tensor of this number."""
        return self._tensors[pid]


_HANDED: WeakKeyDictionary[Any, tuple[list[Any], Tensor]] = WeakKeyDictionary()


def in_one_piece(owner: object, reduced: Reduced) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The same object for :mod:`pickle`, with all tensors of the CPU in one, which several processes share.

    Each tensor of its own takes a file descriptor, and ``forkserver`` hands on no more than 255 of these.

    Args:
        owner: What is pickled; while it lives, the next process shares the memory if no tensor has changed.
        reduced: Its ``__reduce_ex__``.

    Raises:
        RuntimeError: There is no shared memory.
    """
    file = io.BytesIO()
    packer = _Packer(file)
    packer.dump(reduced)
    marks = [(t, None if t.is_inference() else t._version, t.data_ptr()) for t in packer.tensors]
    known, piece = _HANDED.get(owner, ([], None))
    if (
        piece is None
        or len(known) != len(marks)
        or any(a[0] is not b[0] or a[1:] != b[1:] for a, b in zip(known, marks, strict=True))
    ):
        piece = packer.piece()
        hand_on(piece)
        _HANDED[owner] = marks, piece
    return _taken_apart, (file.getvalue(), piece, packer.places)


def _taken_apart(data: bytes, piece: Tensor, places: list[_Place]) -> Any:
    function, arguments, state, *_ = _Unpacker(io.BytesIO(data), [place.find(piece) for place in places]).load()
    made = function(*arguments)
    made.__setstate__(state)
    return made


def _dense(tensor: Tensor) -> Tensor:
    """The tensor itself if its numbers lie one beside the other in some order, else a copy of it that does."""
    channels_last = tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return tensor if channels_last or tensor.is_contiguous() else tensor.contiguous()
