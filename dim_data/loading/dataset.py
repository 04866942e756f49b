"""A distilled image set as a map-style dataset, in place of torchvision's."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import cached_property
from numbers import Real
from pathlib import Path
from typing import Any, TypeVar

import torch

from dim_data.generator import Generator
from dim_data.loading.choosing import CacheChoice
from dim_data.loading.forms import form_of
from dim_data.loading.items import Items
from dim_data.loading.opening import check_soft_labels, open_source, points_to_torchvision
from dim_data.loading.parts import part_generator, part_seed
from dim_data.loading.passes import check_int, check_state, settings_to_save
from dim_data.loading.serials import check_refresh
from dim_data.networks import resolve_device

__all__ = ["DistilledDataset"]

D = TypeVar("D", bound="DistilledDataset")


class DistilledDataset(Items):
    """A labelled image set that a generator paints: other pictures from epoch to epoch, until all were shown.

    Picture ``index`` is of class ``index % num_classes``. What it shows is a pure function of (weights, seed,
    epoch, index), bit-equal on one kind of device however the indices are batched or shared out to workers.

    Every pass is a new epoch, with nobody calling anything, in stock ``DataLoader`` with any workers: drawing
    an index again moves on to the next epoch. So ``dataset[0]`` twice gives two pictures, and the pictures of one
    loop do not match the ``soft_labels`` of another, unless the epoch is pinned by :meth:`set_epoch` or ``fixed``.
    Pin it where a run must be repeatable although passes are cut short, or indices are drawn with replacement in
    several workers (which may, by a hair, even draw one picture twice): there the moment of moving on depends on
    timing. Ranks of a process group move on after as many draws as fall to each: where the set is one of several
    that are shared out together, or they share a part of it, or one of them alone looks at pictures, as for a log, pin
    the epoch, or some pictures come again in the next pass. (``copy.copy(dataset)`` can be looked at without any
    effect on ``dataset``.) A process forked or spawned with the dataset that is no worker of a ``DataLoader``, such as
    one of several jobs, goes its own way from where it stood.

    Where stored codes run out, pictures come again in a later epoch, at any index, so that the parts which
    ``random_split`` makes see each other's: :meth:`split` makes two that never do.

    ``DataLoader`` reads whole batches of the dataset, or of a ``Subset`` of it; :meth:`read` does the same. Whoever
    overrides or wraps ``__getitem__`` is asked for each item instead. Pictures asked for one by one are painted a few
    at a time and kept, in 256 MB at most, so that a pass costs what it costs in batches, in order or shuffled. It is
    many times slower where indices are drawn with replacement, or an epoch takes more than that (in workers that are
    spawned, more than 64 MB: each then paints for itself).

    Args:
        source: A :class:`Generator`, a folder, a bundled name such as ``"cifar10"`` or a Hub id.
        ipc: Images of each class in an epoch.
        transform: Maps each PIL image (RGB, or L for grey) to what the item holds; may be assigned later.
        target_transform: Maps each label; may be assigned later.
        seed: Any int, taken modulo 2**64; other seeds, other pictures.
        train: Present for compatibility with torchvision; only ``True`` makes sense.
        revision: Branch, tag or commit, where ``source`` is a Hub id.
        fixed: Stay in epoch 0 for ever: ``ipc * num_classes`` pictures in all.
        device: Where pictures are made; ``None`` means the CPU. A GPU serves the main process only.
        token: Hub access token, for private repositories.
        cache: Keep pictures that can be asked for again in memory that all workers share, so that none is made twice:
            those of stored codes, of a ``fixed`` set, or of an epoch with ``refresh``. They are the same bit for bit,
            and a classifier then trains as from a tensor in memory. Memory grows as they are asked for, a byte for each
            pixel and channel: to 154 MB for 50,000 codes of 32x32 RGB. ``"auto"`` keeps them where all together take
            512 MB at most, in each process that is not a worker, and does without in workers that are spawned if they
            take more than a quarter of the free ``/dev/shm``; ``True`` keeps them whatever they take; ``False`` keeps
            none. A weight that is changed makes it begin anew, in the process where it was changed; items
            asked for one by one show it from the next epoch on.
        refresh: Of a generator driven by noise, the share of an epoch's pictures that is new in the next one; the rest
            stays, each at its index. At 0.1 a picture is shown in ten passes, and a pass makes a tenth of the pictures:
            faster, but fewer different pictures teach less.
            Which are new in which epoch depends on the index and the epoch alone. Where an epoch is not kept
            (``cache``), the pictures are the same, and all are made in each pass. 1: all are new.
        soft_labels: Hand out, in place of each class, the probabilities that a teacher gives the picture, where the
            generator stores those or the teacher: a float32 tensor (num_classes,). ``cross_entropy`` takes a batch of
            them as it takes classes. A share such as 0.5 hands out that much of them, the rest being the class.

    Attributes:
        generator: The :class:`Generator`, on ``device``. Not to be assigned.
        ipc: Images of each class. Not to be assigned.
        seed: The seed; may be assigned: other pictures from then on.
        fixed: Whether the epoch is frozen.
        refresh: The share of pictures that is new in each epoch. Not to be assigned.
        soft_labels: The share of soft labels in the labels, 0 to 1. Not to be assigned.
        epoch: The epoch of the latest pictures. :meth:`set_epoch` chooses one.

    Raises:
        FileNotFoundError: No such source.
        MemoryError: ``cache=True``, and ``/dev/shm`` has too little room for it in workers that are spawned.
        RuntimeError: ``device`` is a GPU, and there is none.
        TypeError: ``ipc`` or ``seed`` is not an int, ``refresh`` no number, or the arguments are those of torchvision's
            sets.
        ValueError: ``ipc`` is below 1, ``train=False``: synthetic images are no test set, ``cache=True`` with a
            generator driven by noise of which no picture comes again, ``refresh`` outside (0, 1], or below 1 with
            stored codes or ``fixed``, or ``soft_labels`` with a generator that stores none or past [0, 1].
    """

    _splits = 0  # times that the set was split before, this being what was left
    _tested_on = "torchvision.datasets.CIFAR10(root, train=False)"

    @points_to_torchvision
    def __init__(
        self,
        source: Generator | str | Path,
        *,
        ipc: int = 50,
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
        seed: int = 0,
        train: bool = True,
        revision: str | None = None,
        fixed: bool = False,
        device: str | torch.device | None = None,
        token: str | bool | None = None,
        cache: CacheChoice = "auto",
        soft_labels: bool | float = False,
        refresh: float = 1.0,
    ) -> None:
        if not train:
            raise ValueError(
                "train=False asks for a test set, and synthetic images are never one: "
                f"test on the real images, for example {self._tested_on}"
            )
        self.ipc, self.train = check_int("ipc", ipc, 1), True
        self.seed, self.fixed = seed, fixed
        self._device = resolve_device("cpu" if device is None else device)
        self.device = self._device  # for who asks: subclasses have a word of their own for it
        self.generator = open_source(source, revision, self._device, token)
        self.soft_labels = check_soft_labels(self.generator, soft_labels)
        self.refresh = check_refresh(self.generator, refresh, fixed)
        self.transform, self.target_transform = transform, target_transform
        self.source = self.spec.name if isinstance(source, Generator) else str(source)
        self._form = form_of(self.spec)
        self._begin(cache)

    @cached_property
    def classes(self) -> list[str]:
        """Class names, in label order; may be edited or assigned, which no item depends on."""
        return list(self.spec.classes)

    @cached_property
    def class_to_idx(self) -> dict[str, int]:
        """Label of each class name; may be edited or assigned, likewise."""
        return {name: label for label, name in enumerate(self.classes)}

    def split(self: D, holdout: float = 0.1) -> tuple[D, D]:
        """Part the set into one to train on and one to validate on that never show the same picture.

        The first is new in each pass, even where this set is pinned, with ``ipc`` less what is held out; the second
        stays the same. They go on independently, so ``validation.transform`` may be another. Of stored codes the second
        gets some of each class for itself: no more than that share of them, so that it is smaller where codes are few.
        Either part can be split again, into three that share none.

        Args:
            holdout: Share of each class to hold out, in (0, 1); at least one picture.

        Raises:
            ValueError: ``holdout`` is no such share, there is too little of a class to part, or ``data`` or
                ``targets`` was changed: split first, or use ``random_split``, which is right for a set that is fixed.
        """
        held = max(1, round(self.ipc * holdout)) if isinstance(holdout, Real) and 0 < holdout < 1 else 0
        if not 0 < held < self.ipc:
            raise ValueError(
                f"holdout={holdout!r} of ipc={self.ipc} is no parting: a share of each class in (0, 1), such as 0.1, "
                "that leaves at least one picture for either part"
            )
        if self._is_changed():
            raise ValueError(
                "data or targets was changed, and split() parts what is painted: split first and change the parts, "
                "or use torch.utils.data.random_split, which is right for a set that stays the same"
            )
        rest, other, different = part_generator(self.generator, self.ipc, held, self.seed)
        train, validation = copy.copy(self), copy.copy(self)
        held_out = {"generator": other, "ipc": different, "fixed": True, "refresh": 1.0, "_splits": 0}
        held_out["seed"] = part_seed(self.seed, self._splits)
        left = {"generator": rest, "ipc": self.ipc - held, "_splits": self._splits + 1}
        for part, settings in ((train, left), (validation, held_out)):
            part.__dict__.update(settings, _targets=None)
            part._begin(self._cache)
        return train, validation

    # Resuming ----------------------------------------------------------------------------------------

    @property
    def _settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("ipc", "seed", "refresh")} | {
            "num_classes": self.spec.num_classes
        }

    def state_dict(self) -> dict[str, Any]:
        """Where the draws stand: JSON-ready, one bit for each index.

        torchdata's ``StatefulDataLoader`` asks each worker and joins the answers: an interrupted pass goes
        on, and the next begins, exactly as if unbroken. It sees only the dataset it was given, so around a
        ``Subset`` or another wrapper pin the epoch instead. Called in the main process, this includes what
        workers have drawn ahead.
        """
        return {"settings": settings_to_save(self._settings), **self._passes.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go to where :meth:`state_dict` was taken.

        Raises:
            ValueError: The state was saved with another ``ipc``, ``seed``, ``refresh`` or number of classes.
        """
        check_state(state_dict, self._settings, {"epoch", "pinned", "drawn"})
        self._passes.load_state_dict(state_dict)
        self._misuse.resume(self._passes.epoch)

    def __repr__(self) -> str:
        commit = f" at {self.generator.revision}" if self.generator.revision else ""
        pinned = self._passes.pinned is not None
        epoch = "fixed" if self.fixed else "pinned" if pinned else "new in each pass"
        lines = [
            f"Dataset {type(self).__name__}",
            f"    Number of datapoints: {len(self)}",
            f"    Source: {self.source}{commit}",
            f"    Images per class: {self.ipc} of {self.spec.num_classes} classes",
            f"    Epoch: {self.epoch} ({epoch})",
        ]
        if self._data is not None:
            lines[3:] = ["    Pictures: as assigned to data, the same in each pass"]
        for head, transform in (("Transform", self.transform), ("Target transform", self.target_transform)):
            if transform is not None:
                lines.append(f"    {head}: " + repr(transform).replace("\n", "\n    "))
        return "\n".join(lines)
