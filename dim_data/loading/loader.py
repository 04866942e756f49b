"""Batches of a distilled image set, made on the device that trains on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from dim_data.generator import Generator
from dim_data.images import ImageSpec, are_default
from dim_data.loading.ahead import made_ahead
from dim_data.loading.batches import paint_batches
from dim_data.loading.cache import PictureCache
from dim_data.loading.choosing import CacheChoice, painter_for
from dim_data.loading.misuse import warn_of_one_draw
from dim_data.loading.opening import check_soft_labels, open_source
from dim_data.loading.orders import EpochSampler
from dim_data.loading.passes import MAX_EPOCH, check_int, check_state, settings_to_save
from dim_data.loading.pictures import LoaderPictures
from dim_data.loading.progress import Progress
from dim_data.loading.serials import check_refresh
from dim_data.loading.shares import Share, agree, check_share
from dim_data.networks import resolve_device

__all__ = ["DistilledLoader"]


class DistilledLoader(DataLoader[tuple[Any, Tensor]]):
    """Iterate over ``(images, labels)`` batches of a distilled image set; each pass is a new epoch.

    The pictures are those of :class:`~dim_data.loading.DistilledDataset` with the same source, ``ipc``, seed
    and epoch. No worker processes and no stored order: memory holds the generator, what ``cache`` keeps and a
    few batches, whatever ``ipc`` is. Iterators may run side by side; each keeps the epoch it
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
        cache: Keep pictures that can be asked for again, on ``device``, so that none is made twice: see
            :class:`~dim_data.loading.DistilledDataset`. ``"auto"`` does where all together take 512 MB at most, and of
            a GPU's free memory a quarter. Each rank keeps its own.
        refresh: See :class:`~dim_data.loading.DistilledDataset`. Where ranks share an epoch, each keeps what fell to
            it, so that it makes more than that share of its pictures anew.
        ahead: On a CPU, batches that a thread makes while you train on those before. Where training leaves no core idle
            it costs more than it saves: on two cores a tenth to a third (``benchmarks/``). It does not begin before the
            second batch of a pass, and rests while no picture has to be made or you have torch compute in another
            precision. ``transform`` is called when a batch is handed out.
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
        TypeError: ``batch_size``, ``ipc``, ``seed``, ``refresh``, ``ahead``, ``dtype``, ``rank`` or ``world_size``
            has the wrong type.
        ValueError: ``batch_size`` or ``ipc`` is below 1, ``ahead`` is negative, ``refresh`` is outside (0, 1] or below
            1 with stored codes, ``cache=True`` with a generator driven by noise of which no picture comes again,
            ``soft_labels`` with one that stores none or past [0, 1], ``rank`` is outside [0, world_size), or an
            epoch cannot be shared out equally, or has no full batch and ``drop_last`` leaves out the rest; in a process
            group, that is raised by ``len()`` and ``iter()``.
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
        cache: CacheChoice = "auto",
        soft_labels: bool | float = False,
        refresh: float = 1.0,
        ahead: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        batch_size, ipc = check_int("batch_size", batch_size, 1), check_int("ipc", ipc, 1)
        self.ahead = check_int("ahead", ahead, 0)
        if not isinstance(dtype, torch.dtype) or not (dtype.is_floating_point or dtype == torch.uint8):
            raise TypeError(f"dtype must be torch.uint8 or a floating-point type such as torch.float32, got {dtype!r}")
        seed, share, device = check_int("seed", seed), check_share(rank, world_size), resolve_device(device)
        generator = open_source(source, revision, device, token)
        share_of_soft = check_soft_labels(generator, soft_labels)
        refresh = check_refresh(generator, refresh)
        opinions = bool(share_of_soft)
        painter = painter_for(generator, cache, ipc=ipc, again=refresh < 1, opinions=opinions, shared=False)
        self._progress = Progress()
        pictures = LoaderPictures(
            painter,
            generator,
            ipc=ipc,
            seed=seed,
            refresh=refresh,
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
        self.ipc, self.seed, self.refresh = ipc, seed, refresh
        self.soft_labels, self.shuffle = share_of_soft, shuffle
        self._agreed = share is not None
        if share is not None or drop_last:
            len(self)  # whether it can be shared out, and leaves a batch

    def __setattr__(self, attr: str, val: Any) -> None:
        if (
            attr in ("ipc", "seed", "refresh", "shuffle", "soft_labels", "dtype", "generator")
            and "shuffle" in self.__dict__
        ):
            raise ValueError(
                f"{attr} is not to be changed in a loader: make another, as in DistilledLoader(..., {attr}=)"
            )
        if attr in ("collate_fn", "target_transform") and "shuffle" in self.__dict__:
            raise ValueError(
                f"a loader paints whole batches, which no {attr} sees: map its images by transform=, or put a "
                "DataLoader around a DistilledDataset"
            )
        if attr == "transform":
            warn_of_one_draw(val)
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
        pictures = self.dataset
        batches = paint_batches(pictures, self.sampler, self.batch_size, self.device, cursor, share)
        for images, targets in made_ahead(batches, self.ahead, self._may_paint_ahead):
            cursor.place += len(targets) * share.world_size
            yield images if self.transform is None else self.transform(images), targets

    def _may_paint_ahead(self) -> bool:
        painter = self.dataset.painter
        filled = isinstance(painter, PictureCache) and painter.is_full
        # On a GPU painting does not wait to be done anyway.
        return self.ahead > 0 and self.device.type == "cpu" and not filled and are_default()

    def _is_over(self, share: Share) -> bool:
        left = len(self.dataset) - self._progress.cursor.place
        return left < (self.batch_size * share.world_size if self.drop_last else 1)

    def state_dict(self) -> dict[str, Any]:
        """Where the latest pass stands: JSON-ready, the same on every rank."""
        cursor, world_size = self._progress.cursor, self.sampler.share.world_size
        step = self.batch_size * world_size
        settings = settings_to_save(self._settings)
        state: dict[str, Any] = {"settings": settings, "epoch": cursor.epoch, "batch": -(-cursor.place // step)}
        if world_size > 1:
            state["world_size"] = world_size
        if cursor.place < len(self.dataset) and cursor.place % step:  # taken up from another number of ranks
            state["place"] = cursor.place
        return state

    @property
    def _settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("batch_size", "ipc", "seed", "refresh", "shuffle")}

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
