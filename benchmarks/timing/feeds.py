"""What feeds a training loop in the benchmarks of the use half: ours, each in its states, beside the peers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import torch
from torch.utils.data import DataLoader
from torchvision import transforms

from dim_data import DistilledDataset, DistilledLoader
from timing.contest import Bench, load
from timing.peers import Feed, Memory, peers

MEMORY = "a tensor in memory"
FIRST, FILLED = "first pass over the pictures", "later passes"


class Anew:
    """A loader that is made anew for each pass: what it keeps is empty each time."""

    def __init__(self, make: Callable[[], Feed]) -> None:
        self.make = make

    def __iter__(self) -> Iterator[Any]:
        return iter(self.make())


class Several:
    """Some passes for one, of a loader whose work is not spread evenly over them."""

    def __init__(self, loader: DistilledLoader, passes: int) -> None:
        self.loader, self.passes = loader, passes

    def __iter__(self) -> Iterator[Any]:
        return chain.from_iterable(self.loader for _ in range(self.passes))


class OneByOne(DistilledDataset):
    """Asked for each item by itself, as whoever overrides or wraps ``__getitem__`` is."""

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """An item."""
        return super().__getitem__(index)


def feeds(bench: Bench, count: int, *, workers: tuple[int, ...], noise: bool = True) -> dict[str, Feed]:
    """Name -> what yields (images, labels) batches of ``count`` pictures.

    The bank of codes is cut to one epoch, so that a pass is a pass over all pictures there are.

    Args:
        bench: Sizes and device.
        count: Pictures in an epoch, a multiple of ten.
        workers: Numbers of worker processes that a ``DataLoader`` is timed with.
        noise: Whether the generator driven by noise takes part.
    """
    device, ipc, to_tensor = bench.device, count // 10, transforms.ToTensor()
    memory = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, device=device)
    found: dict[str, Feed] = {MEMORY: Memory(memory, torch.arange(count, device=device) % 10, bench.batch)}
    codes, there = load("cifar10", torch.device("cpu")).keep_codes(count), load("cifar10", device).keep_codes(count)

    def loader(**options: Any) -> DistilledLoader:
        return DistilledLoader(there, bench.batch, ipc=ipc, device=device, **options)

    found[f"DistilledLoader, {FIRST}"] = Anew(loader)
    found[f"DistilledLoader, {FIRST}, `ahead=2`"] = Anew(lambda: loader(ahead=2))
    found[f"DistilledLoader, {FILLED}"] = loader()
    if noise:
        both = {"refresh": 0.1, "ahead": 2}
        for name, options in (("", {}), (", `ahead=2`", {"ahead": 2}), (", `refresh=0.1`, `ahead=2`", both)):
            # Each has a generator of its own: one keeps codes that it drew ahead for whoever asks next.
            drawn = DistilledLoader(load("cifar10_noise", device), bench.batch, ipc=ipc, device=device, **options)
            found[f"DistilledLoader, noise{name}"] = Several(drawn, 3)
    for number in workers:
        plural = f"{number} worker{'s' * (number != 1)}"
        kept = {"batch_size": bench.batch, "num_workers": number, "persistent_workers": number > 0, "shuffle": True}
        found |= peers(count, bench.batch, number)
        for kind, name in ((DistilledDataset, "DistilledDataset"), (OneByOne, "DistilledDataset, item by item")):
            filled = kind(codes, ipc=ipc, transform=to_tensor)
            found[f"{name}, {plural}, {FILLED}"] = DataLoader(filled, **kept)
        never = DistilledDataset(codes, ipc=ipc, transform=to_tensor, cache=False)
        found[f"DistilledDataset, {plural}, `cache=False`"] = DataLoader(never, **kept)
    return found
