"""Batches of a distilled image set, made on the device that trains on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from dim_data.generator import Generator, blended
from dim_data.images import ImageSpec, in_steps
from dim_data.loading.cache import PictureCache
from dim_data.loading.opening import check_soft_labels, open_source
from dim_data.loading.orders import EpochSampler
from dim_data.loading.passes import MAX_EPOCH, check_int, check_state
from dim_data.loading.pictures import LoaderPictures, as_dtype
from dim_data.loading.progress import Cursor, Progress
from dim_data.loading.shares import Share, agree, check_share
from dim_data.networks import resolve_device

__all__ = ["DistilledLoader"]

PLANNED = 8192
"""Images whose places in the epoch are worked out at once, on the CPU, where that needs no wait for the device."""
PAINTED = {"cuda": 1024}
"""Images painted at once, by device, if a batch is smaller: on a GPU it is the launching of kernels that takes time."""


class DistilledLoader(DataLoader[tuple[Any, Tensor]]):
    """Iterate over ``(images, labels)`` batches of a distilled image set; each pass is a new epoch.

    The pictures are those of :class:`~dim_data.loading.DistilledDataset` with the same source, ``ipc``, seed
    and epoch. No worker processes, and unless ``cache`` says so no stored images or order: memory holds the
    generator and a few batches, whatever ``ipc`` is. Iterators may run side by side; each keeps the epoch it
    began with, at its first batch.

    Where torch.distributed runs, the ranks share each epoch: each picture of it goes to one rank, and each rank gets
    as many batches, as large, as every other. The process group may be made after the loader. Lightning, Fabric and
    Accelerate take the loader as it is, by ``setup_dataloaders`` and ``prepare`` too, and share out nothing again;
    their checkpoints hold its state. A rank that read a batch alone, for a look at it, is an epoch ahead of the others
    until all call :meth:`set_epoch`.

    It is a ``DataLoader`` for those who ask. ``dataset`` has the pictures of the present epoch by index, ``sampler``
    their order on this rank; what concerns worker processes has no effect. Who takes a loader apart and makes another
    (Lightning's ``predict`` and ``overfit_batches``, Accelerate's ``skip_first_batches``) fails on this one: give them
    a ``DataLoader`` around a ``DistilledDataset``, or skip batches by :meth:`load_state_dict`.

    Args:
        source: A :class:`Generator`, a folder, a bundled name such as ``"cifar10"`` or a Hub id.
        batch_size: Images in a batch, of each rank.
        ipc: Images of each class in an epoch.
        device: Where batches are made; ``None`` means CUDA where there is one, else the CPU.
        transform: Maps each batch of images (B, C, H, W), for example ``loader.spec.normalize``; may be
            assigned later.
        seed: Any int, of pictures and order.
        shuffle: Put each epoch in a new order, a pure function of seed and epoch.
        drop_last: Leave out a last batch that is not full, on each rank.
        revision: Branch, tag or commit, where ``source`` is a Hub id.
        token: Hub access token, for private repositories.
        dtype: ``torch.uint8``, or a floating-point type for images in [0, 1]; un-normalised.
        cache: Keep each decoded picture of a generator with stored codes, on ``device``, so that none is decoded
            twice: the same pictures, faster; see :class:`~dim_data.loading.PictureCache` for the memory it takes.

        soft_labels: Hand out, in place of classes, the probabilities that a teacher gives the pictures, where the
            generator stores those or the teacher: float32 (B, num_classes), which ``cross_entropy`` takes as classes.
            A share such as 0.5 hands out that much of them, the rest being the class.
        rank: Which part of each epoch to hand out; ``None`` means that of this process in torch.distributed, if that
            runs, else all. Ranks that work on the same pictures, as in tensor parallelism, are given the same.
        world_size: How many parts there are; goes with ``rank``. ``rank=0, world_size=1`` hands out all.

    Attributes:
        generator: The :class:`Generator`, on ``device``.

    Raises:
        FileNotFoundError: No such source.
        RuntimeError: CUDA is asked for and there is none.
        TypeError: ``batch_size``, ``ipc``, ``seed``, ``dtype``, ``rank`` or ``world_size`` has the wrong type.
        ValueError: ``batch_size`` or ``ipc`` is below 1, ``cache`` with a generator driven by noise,
            ``soft_labels`` with one that stores none or past [0, 1], ``rank`` is outside [0, world_size), or an
            epoch cannot be shared out equally; in a process group, that is raised by ``len()`` and ``iter()``.
    """

    # Accelerate hands such a loader back as it is, and saves its state: the ranks share it out already.
    _is_accelerate_prepared = True
    use_stateful_dataloader = True

    generator: Generator  # type: ignore[assignment]  # DataLoader's is a source of random numbers, which this needs not
    batch_size: int
    dataset: LoaderPictures
    sampler: EpochSampler

    def __init__(
        self,
        source: Generator | str | Path,
        batch_size: int = 128,
        *,
        ipc: int = 50,
        device: str | torch.device | None = None,
        transform: Callable[[Tensor], Any] | None = None,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
        revision: str | None = None,
        token: str | bool | None = None,
        dtype: torch.dtype = torch.float32,
        cache: bool = False,
        soft_labels: bool | float = False,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        batch_size, ipc, seed = (
            check_int("batch_size", batch_size, 1),
            check_int("ipc", ipc, 1),
            check_int("seed", seed),
        )
        if not isinstance(dtype, torch.dtype) or not (dtype.is_floating_point or dtype == torch.uint8):
            raise TypeError(f"dtype must be torch.uint8 or a floating-point type such as torch.float32, got {dtype!r}")
        seed, share, device = check_int("seed", seed), check_share(rank, world_size), resolve_device(device)
        generator = open_source(source, revision, device, token)
        share_of_soft = check_soft_labels(generator, soft_labels)
        self._painter = PictureCache(generator) if cache else generator
        self._progress = Progress()
        pictures = LoaderPictures(
            self._painter,
            generator,
            ipc=ipc,
            seed=seed,
            soft_labels=share_of_soft,
            dtype=dtype,
            progress=self._progress,
        )
        sampler = EpochSampler(
            pictures,
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            drop_last=drop_last,
            share=share,
            progress=self._progress,
        )
        super().__init__(pictures, batch_size, sampler=sampler, drop_last=drop_last)
        self.generator, self.device, self.dtype, self.transform = generator, device, dtype, transform
        self.ipc, self.seed, self.soft_labels, self.shuffle = ipc, seed, share_of_soft, shuffle
        self._agreed = share is not None
        if share is not None:
            len(self)  # whether it can be shared out

    def __setattr__(self, attr: str, val: Any) -> None:
        if attr in ("ipc", "seed", "shuffle", "soft_labels", "dtype", "generator") and "shuffle" in self.__dict__:
            raise ValueError(
                f"{attr} is not to be changed in a loader: make another, as in DistilledLoader(..., {attr}=)"
            )
        super().__setattr__(attr, val)

    @property
    def spec(self) -> ImageSpec:
        """Shape, class names and normalisation of the images."""
        return self.generator.spec

    @property
    def epoch(self) -> int:
        """The epoch of the latest pass, or that of the first one, before it."""
        return self._progress.cursor.epoch

    def set_epoch(self, epoch: int) -> None:
        """Make ``epoch`` that of the next pass; counting goes on from there.

        A pass of that very epoch that a state is about to take up is taken up all the same.

        Raises:
            TypeError: ``epoch`` is not an int.
            ValueError: ``epoch`` is negative.
        """
        self._progress.set_epoch(epoch)

    def __len__(self) -> int:
        """Batches in an epoch, of this rank as of every other.

        Raises:
            ValueError: An epoch cannot be shared out equally to the ranks.
        """
        return -(-len(self.sampler) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Any, Tensor]]:  # type: ignore[override]
        """Hand out the next epoch, or the rest of a loaded one: ``(images, labels)`` on the device.

        Images are (B, C, H, W), transformed; labels are int64 (B,), or float32 (B, num_classes) if soft. The epoch
        begins with the first batch: an iterator that nobody asks for one, as those who check a loader make, is none.

        Raises:
            ValueError: The ranks were given different settings or states, or cannot share the epoch out equally.
        """
        share = self.sampler.share
        cursor = self._progress.begin(self._is_over(share))
        if not self._agreed and share.world_size > 1:
            agree({**self._settings, "drop_last": self.drop_last, "epoch": cursor.epoch, "place": cursor.place}, share)
            self._agreed = True
        for images, targets in self._paint(cursor, share):
            cursor.place += len(targets) * share.world_size
            yield images if self.transform is None else self.transform(images), targets

    def _is_over(self, share: Share) -> bool:
        left = len(self.dataset) - self._progress.cursor.place
        return left < (self.batch_size * share.world_size if self.drop_last else 1)

    @in_steps(painting=True)
    def _paint(self, cursor: Cursor, share: Share) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches that a rank has from ``cursor`` on, untransformed."""
        size, epoch, first = self.batch_size, cursor.epoch, cursor.place
        planned = max(1, PLANNED // size) * size
        painted = max(1, PAINTED.get(self.device.type, 0) // size)
        for start in range(0, self.sampler.left(first, share), planned):
            indices = self.sampler.indices(epoch, first, share, start, start + planned)
            labels = indices % self.spec.num_classes
            serials = epoch * self.ipc + torch.div(indices, self.spec.num_classes, rounding_mode="floor")
            targets: Tensor = labels.to(self.device)
            stored = self.generator.source.finite
            if self.soft_labels and stored:
                targets = blended(self.generator.soft_labels(labels, serials, self.seed), labels, self.soft_labels)
            rows = self.generator.rows(labels, serials, self.seed) if stored else None
            for low in range(0, len(labels), painted * size):
                part = slice(low, low + painted * size)
                answers = targets[part]
                if rows is not None:
                    images = self._painter.decode(rows[part])
                else:
                    images = self.generator.synthesize(labels[part], serials[part], self.seed)
                    if self.soft_labels:
                        said = self.generator.soft_labels(labels[part], serials[part], self.seed, images)
                        answers = blended(said, labels[part], self.soft_labels)
                images = as_dtype(images, self.dtype)
                yield from zip(images.split(size), answers.split(size), strict=True)

    def state_dict(self) -> dict[str, Any]:
        """Where the latest pass stands: JSON-ready, the same on every rank."""
        cursor, world_size = self._progress.cursor, self.sampler.share.world_size
        step = self.batch_size * world_size
        state: dict[str, Any] = {"settings": self._settings, "epoch": cursor.epoch, "batch": -(-cursor.place // step)}
        if world_size > 1:
            state["world_size"] = world_size
        if cursor.place < len(self.dataset) and cursor.place % step:  # taken up from another number of ranks
            state["place"] = cursor.place
        return state

    @property
    def _settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("batch_size", "ipc", "seed", "shuffle")}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Let the next pass go on after the last batch handed out when the state was taken.

        A state taken at the end of an epoch goes on with the next one. It may be loaded at another number of ranks,
        on each of them, with the same ``batch_size`` or one that makes the ranks' batches together as large.

        Raises:
            ValueError: The state was saved with other settings, or is not a loader's.
        """
        state, settings, share = state_dict, self._settings, self.sampler.share
        extra = {name: state[name] for name in ("world_size", "place") if isinstance(state, Mapping) and name in state}
        if extra:
            state = {name: value for name, value in state.items() if name not in extra}
        step = self.batch_size * share.world_size
        ranks = check_int("world_size", extra.get("world_size", 1), 1)
        if step % ranks == 0 and ranks != share.world_size:
            saved = state.get("settings")
            if isinstance(saved, Mapping) and saved.get("batch_size") == step // ranks:
                settings["batch_size"] = step // ranks
        check_state(state, settings, {"epoch", "batch"})
        epoch = check_int("epoch", state["epoch"], 0, MAX_EPOCH)
        batch = check_int("batch", state["batch"], 0)
        place = check_int("place", extra.get("place", batch * settings["batch_size"] * ranks), 0)
        self._progress.choose(epoch, min(place, len(self.dataset)))
        if self._is_over(share):
            self._progress.choose(epoch + 1)
        self._agreed = not self.sampler.follows_group

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.spec.name!r}, batch_size={self.batch_size}, ipc={self.ipc}, "
            f"device={str(self.device)!r}, seed={self.seed}, shuffle={self.shuffle}, dtype={self.dtype})"
        )
