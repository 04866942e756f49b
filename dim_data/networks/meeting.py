"""How several processes keep step, and how an error of one ends the work of all.

All goes through the default process group, and by collectives alone: each rank must come to the same calls in the same
order. With each call goes a frame of one size, in which a rank may say that it has failed. So none waits for a rank
that will not come, and after an error the group can be used as before.
"""

from __future__ import annotations

import itertools
import math
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["ROOM", "Meeting", "RankError", "connected"]

ROOM = 254
"""Numbers that go with a frame: small sums need no call of their own."""
NOTES = "dim_data.ranks"
POLL = 0.05
CPU = torch.device("cpu")
DTYPES = (torch.uint8, torch.int64, torch.float32, torch.float64, torch.bool, torch.bfloat16, torch.float16)


class RankError(RuntimeError):
    """Another rank failed, or is gone."""


@dataclass(frozen=True)
class Meeting:
    """The processes of the default process group, or this one alone.

    Args:
        rank: Which this is.
        size: How many there are.
        device: Where frames lie: the CPU, unless nothing of it can be sent.
        gpu: Whether what lies on a GPU can be sent from there.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = CPU
    gpu: bool = False

    _works: ClassVar[itertools.count[int]] = itertools.count()
    _state: ClassVar[dict[str, Any]] = {"work": None, "waits": 0, "bytes": 0}

    @property
    def bytes_sent(self) -> int:
        """Bytes that this process has handed over to be sent, in all calls so far."""
        return int(self._state["bytes"])

    # Errors ------------------------------------------------------------------------------------------

    @contextmanager
    def together(self) -> Iterator[None]:
        """A work of all ranks: an exception that leaves it on one of them ends it on all, each with its message.

        Raises:
            RankError: Another rank failed, or is gone. Where several failed, each has its own error.
        """
        if self.size == 1 or self._state["work"] is not None:
            yield
            return
        self._state.update(work=next(self._works), waits=0)
        try:
            yield
            self._exchange("end")
        except RankError:
            raise
        except BaseException as error:
            with suppress(RankError):  # the error itself is raised
                self._store().set(self._note("failed"), "")
                self._exchange("failing", failed=f"{type(error).__name__}: {error}".strip(": "))
            raise
        finally:
            self._state["work"] = None

    def barrier(self) -> None:
        """Wait until all ranks are here, for as long as it takes: collectives lose patience after some minutes."""
        if self.size == 1:
            return
        self._state["waits"] += 1
        store, here = self._store(), self._note(f"wait{self._state['waits']}")
        with connected():
            store.add(here, 1)
            while store.add(here, 0) < self.size and not store.check([self._note("failed")]):
                time.sleep(POLL)
        self._exchange("barrier")

    def _note(self, what: str) -> str:
        return f"{NOTES}/{self._state['work']}/{what}"

    @staticmethod
    def _store() -> Any:
        return dist.distributed_c10d._get_default_store()

    def _exchange(self, place: str, values: Tensor | None = None, failed: str | None = None) -> Tensor:
        """The sum over the ranks of ``values``, float64 (up to ROOM,), and first of all whether all is well."""
        frame = torch.zeros(ROOM + 2, dtype=torch.float64)
        code = zlib.crc32(place.encode())
        frame[0], frame[1] = failed is not None, code
        if values is not None:
            frame[2 : 2 + len(values)] = values
        frame = self._sum(frame.to(self.device)).cpu()
        if frame[0]:
            self._raise(failed)
        if frame[1] != code * self.size:
            raise RankError(f"ranks are out of step: rank {self.rank} has come to {place!r}, and others have not")
        return frame[2 : 2 + (0 if values is None else len(values))]

    def _sendable(self, device: torch.device) -> torch.device:
        """Where to put what lies on ``device``, to send it."""
        return device if device.type == self.device.type or (self.gpu and device.type == "cuda") else self.device

    def _sum(self, tensor: Tensor) -> Tensor:
        """Add up in place."""
        self._state["bytes"] += tensor.nbytes
        with connected():
            dist.all_reduce(tensor)
        return tensor

    def _raise(self, failed: str | None) -> None:
        texts = self._send_all(
            torch.frombuffer(bytearray((failed or "").encode() + b"\n"), dtype=torch.uint8), self.device
        )
        said = [bytes(text.tolist()).decode().strip() for text in texts if text is not None]
        rank, text = next((rank, text) for rank, text in enumerate(said) if text)
        raise RankError(f"rank {rank}: {text}")

    def _send_all(self, tensor: Tensor | None, device: torch.device) -> list[Tensor | None]:
        """What each rank has, of any shape, or nothing; it is sent from ``device``."""
        about = torch.zeros(10, dtype=torch.int64)  # kind of number, dimensions, sizes
        if tensor is not None:
            about[0], about[1] = DTYPES.index(tensor.dtype) + 1, tensor.ndim
            about[2 : 2 + tensor.ndim] = torch.tensor(tensor.shape)
        sizes = [x.tolist() for x in self._collect(about.to(self.device))]
        lengths = [_bytes(size) for size in sizes]
        flat = torch.zeros(max(1, *lengths), dtype=torch.uint8, device=device)
        if tensor is not None:
            flat[: tensor.nbytes] = tensor.detach().contiguous().flatten().view(torch.uint8)
        return [
            x[:length].clone().view(DTYPES[kind - 1]).view(shape[:ndim]) if kind else None
            for x, length, (kind, ndim, *shape) in zip(self._collect(flat), lengths, sizes, strict=True)
        ]

    def _collect(self, tensor: Tensor) -> list[Tensor]:
        found = [torch.empty_like(tensor) for _ in range(self.size)]
        self._state["bytes"] += tensor.nbytes
        with connected():
            dist.all_gather(found, tensor)
        return found


def _bytes(about: Sequence[int]) -> int:
    kind, ndim, *shape = about
    return math.prod(shape[:ndim]) * DTYPES[kind - 1].itemsize if kind else 0


@contextmanager
def connected() -> Iterator[None]:
    """Say of a call that fails that it is not this rank's fault."""
    try:
        yield
    except RankError:
        raise
    except RuntimeError as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RankError(f"another rank has ended, or cannot be reached any more ({reason})") from error
