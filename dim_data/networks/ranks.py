"""Several processes at one work: which of them this is, and what they tell each other.

A process group is what ``torchrun``, Accelerate and Fabric make; :class:`Ranks` is the default one, or this process
alone, for which every method gives back what it is given.

Gradients are averaged here, in one piece after the way back, and not by ``DistributedDataParallel``: that knows of no
gradients of gradients, takes one module's ``forward`` at a time, and leaves all others waiting where one rank fails on
the way. What it gains, sending some gradients while others are computed, is little with networks this small.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from dim_data.images import Portion
from dim_data.networks.meeting import ROOM, Meeting, connected

__all__ = ["ALONE", "Ranks"]

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks(Meeting):
    """The processes of the default process group, or this one alone."""

    @classmethod
    def present(cls) -> Ranks:
        """Those of the default process group, if there is one by now."""
        if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
            return cls()
        backends = dist.get_backend_config()
        gpu, cpu = "cuda:nccl" in backends, "cpu:nccl" not in backends and "cpu:" in backends
        device = torch.device("cuda", torch.cuda.current_device()) if gpu and not cpu else torch.device("cpu")
        return cls(dist.get_rank(), dist.get_world_size(), device, gpu)

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and prints."""
        return self.rank == 0

    @property
    def portion(self) -> Portion:
        """What this rank has of a batch that all share."""
        return Portion(self.rank, self.size)

    def add(self, place: str, *values: float) -> list[float]:
        """The sums over the ranks of a few numbers."""
        if self.size == 1:
            return list(values)
        return self._exchange(place, torch.tensor(values, dtype=torch.float64)).tolist()

    def each(self, place: str, value: float) -> list[float]:
        """The number that each rank has."""
        return self.add(place, *(value if rank == self.rank else 0.0 for rank in range(self.size)))

    def chunks(self, count: int, multiple: int) -> list[slice]:
        """``count`` rows in a piece for each rank, or fewer pieces, all but the last multiples of ``multiple``."""
        length = -(-count // (self.size * multiple)) * multiple
        return [slice(start, min(start + length, count)) for start in range(0, count, length)]

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the ranks, of their own ``values`` of one shape; gradients pass through it.

        A loss on each rank, whose gradients are then averaged by :meth:`average`, has those of the loss of all.
        """
        return values if self.size == 1 else _Mean.apply(values, self)

    def _mean(self, values: Tensor) -> Tensor:
        flat = values.detach().flatten()
        if len(flat) <= ROOM:
            total = self._exchange("mean", flat.double().cpu())
        else:
            self._exchange("mean")
            total = self._sum(flat.to(self._sendable(flat.device), copy=True))
        return (total / self.size).to(values.device, values.dtype).view_as(values)

    @torch.no_grad()
    def average(self, optimizer: torch.optim.Optimizer, *losses: Tensor) -> list[float]:
        """Average the gradients of an optimizer's parameters in place, and some losses.

        Returns:
            The means of the losses.
        """
        if self.size == 1:
            return [loss.item() for loss in losses]
        found = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        means = self._exchange("average", torch.stack([loss.double().cpu() for loss in losses])) / self.size
        flat = torch.cat([gradient.flatten() for gradient in found])
        flat = self._sum(flat.to(self._sendable(flat.device))) / self.size
        for gradient, part in zip(found, flat.split([gradient.numel() for gradient in found]), strict=True):
            gradient.copy_(part.view_as(gradient))
        return means.tolist()

    def gather(self, tensor: Tensor | None, device: torch.device | None = None) -> list[Tensor | None]:
        """What each rank has, of any shape, or nothing.

        Args:
            tensor: Of this rank.
            device: Where the others' should lie; default: the CPU.
        """
        if self.size == 1:
            return [tensor]
        self._exchange("gather")
        place = device or torch.device("cpu")
        found = self._send_all(tensor, self._sendable(place))
        return [tensor if rank == self.rank else x if x is None else x.to(place) for rank, x in enumerate(found)]

    def map(
        self, work: Callable[[T], Tensor], parts: Sequence[T], device: torch.device | None = None
    ) -> Iterator[Tensor]:
        """``work`` of each of the parts, in their order, on all ranks; one of them does it.

        Args:
            work: What to do.
            parts: Each rank has them all.
            device: Where results should lie.
        """
        for start in range(0, len(parts), self.size):
            place = start + self.rank
            done = work(parts[place]) if place < len(parts) else None
            yield from (found for found in self.gather(done, device) if found is not None)

    @torch.no_grad()
    def broadcast(self, tensors: Iterable[Tensor], source: int = 0) -> None:
        """Overwrite ``tensors`` in place by those of the rank ``source``, which are alike."""
        if self.size == 1:
            return
        here = list(tensors)
        self._exchange("broadcast")
        parts = [x.detach().contiguous().flatten().view(torch.uint8) for x in here]
        flat = torch.cat(parts)
        flat = flat.to(self._sendable(flat.device))
        self._state["bytes"] += flat.nbytes if self.rank == source else 0
        with connected():
            dist.broadcast(flat, source)
        for tensor, part in zip(here, flat.split([x.nbytes for x in here]), strict=True):
            tensor.copy_(part.clone().view(tensor.dtype).view_as(tensor))

    def all_gather_object(self, facts: Any) -> list[Any]:
        """What each rank says, in JSON's plain values."""
        if self.size == 1:
            return [facts]
        text = torch.frombuffer(bytearray(json.dumps(facts).encode()), dtype=torch.uint8)
        return [json.loads(bytes(one.tolist())) for one in self.gather(text) if one is not None]

    def odd_one(self, facts: Mapping[str, Any]) -> tuple[int, dict[str, Any], dict[str, Any]] | None:
        """The first rank that says something else than most do, what it says, and what they do; ``None``: all agree."""
        said = self.all_gather_object(facts)
        usual = max(said, key=lambda one: (said.count(one), -said.index(one)))
        return next(((rank, one, usual) for rank, one in enumerate(said) if one != usual), None)


ALONE = Ranks()
"""This process, whatever group it is in."""


class _Mean(torch.autograd.Function):
    """The mean over the ranks, there and back."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        return ranks._mean(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.ranks._mean(gradients[0]), None
