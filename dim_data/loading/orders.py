"""The order of a loader's pictures, as a sampler."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DistributedSampler

from dim_data.generator import hash_keys, permute
from dim_data.images import torch_defaults
from dim_data.loading.progress import Progress
from dim_data.loading.shares import Share, present_share

__all__ = ["EpochSampler"]


class EpochSampler(DistributedSampler[int]):
    """The indices of a loader's epoch that fall to this rank, in order.

    Frameworks leave a sampler of this base class as it is: the pictures are shared out already.

    Args:
        dataset: What the indices are of.
        batch_size: Pictures in a batch of one rank.
        shuffle: Put each epoch in a new order, a pure function of seed and epoch.
        seed: Of the order.
        drop_last: Leave out last batches that are not full on each rank.
        share: The part of this process; ``None`` asks torch.distributed each time, since a process group may come
            into being after the loader.
        progress: Of the loader.
    """

    def __init__(
        self,
        dataset: Sized,
        *,
        batch_size: int,
        shuffle: bool,
        seed: int,
        drop_last: bool,
        share: Share | None,
        progress: Progress,
    ) -> None:
        # Not that of the base class, which wants to know the rank now.
        self.dataset: Any = dataset
        self.batch_size, self.shuffle, self.seed, self.drop_last = batch_size, shuffle, seed, drop_last
        self.progress, self._share = progress, share

    @property
    def share(self) -> Share:
        """The part of this process, as things stand."""
        return present_share() if self._share is None else self._share

    @property
    def follows_group(self) -> bool:
        """Whether torch.distributed says whose part is which, rather than the caller."""
        return self._share is None

    @property
    def rank(self) -> int:  # type: ignore[override]
        """Which part of each epoch this process has."""
        return self.share.rank

    @property
    def num_replicas(self) -> int:  # type: ignore[override]
        """How many processes share each epoch."""
        return self.share.world_size

    @property
    def epoch(self) -> int:  # type: ignore[override]
        """The loader's epoch."""
        return self.progress.cursor.epoch

    def set_epoch(self, epoch: int) -> None:
        """Let the loader's next pass be that of ``epoch``, save where the loader was told of another one itself.

        What :meth:`DistilledLoader.set_epoch` chose or a state brought stays, and this counts on from there:
        Fabric counts from 0 in each process.
        """
        self.progress.follow(epoch)

    def left(self, place: int, share: Share) -> int:
        """How many pictures fall to each rank from ``place`` on; see :meth:`Share.count`."""
        return share.count(len(self.dataset) - place, self.batch_size, self.drop_last)

    @property
    def num_samples(self) -> int:  # type: ignore[override]
        """How many pictures of an epoch fall to each rank.

        Raises:
            ValueError: They cannot be shared out equally, or there is no full batch for each rank.
        """
        share = self.share
        count = self.left(0, share)
        if not count:
            ranks = f" for each of {share.world_size} ranks" if share.world_size > 1 else ""
            raise ValueError(
                f"an epoch of {len(self.dataset)} pictures has no full batch of {self.batch_size}{ranks}, and "
                "drop_last=True leaves out the rest: choose a larger ipc or a smaller batch_size"
            )
        return count

    @property
    def total_size(self) -> int:  # type: ignore[override]
        """How many pictures of an epoch fall to all ranks together."""
        return self.num_samples * self.num_replicas

    def __len__(self) -> int:
        return self.num_samples

    def __iter__(self) -> Iterator[int]:
        for start in range(0, self.num_samples, 8192):
            yield from self.indices(self.epoch, 0, self.share, start, start + 8192).tolist()

    @torch_defaults(painting=True)
    def indices(self, epoch: int, place: int, share: Share, start: int, stop: int) -> Tensor:
        """Indices of the pictures that a rank has from its ``start``-th up to its ``stop``-th, int64, on the CPU.

        Args:
            epoch: Which order.
            place: How many pictures of the epoch were handed out before.
            share: Of the rank.
            start: Where to begin, counted from there on.
            stop: Where to end; past the last is the same as there.
        """
        total = len(self.dataset)
        places = place + share.places(start, stop, self.left(place, share), self.batch_size)
        if not self.shuffle:
            return places
        # No class is -1: these keys are apart from those of the pictures.
        keys = hash_keys(self.seed, torch.full_like(places, -1), torch.full_like(places, epoch))
        return permute(places, torch.full_like(places, total), keys)
