"""Batches of a distilled image set, made on the device that trains on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dim_data.generator import Generator, blended, hash_keys, permute
from dim_data.images import ImageSpec
from dim_data.loading.cache import PictureCache
from dim_data.loading.dataset import check_soft_labels, open_source
from dim_data.loading.passes import MAX_EPOCH, check_int, check_state
from dim_data.networks import resolve_device

__all__ = ["DistilledLoader"]

PLANNED = 8192
"""Images whose places in the epoch are worked out at once, on the CPU, where that needs no wait for the device."""
PAINTED = {"cuda": 1024}
"""Images painted at once, by device, if a batch is smaller: on a GPU it is the launching of kernels that takes time."""


@dataclass
class _Cursor:
    epoch: int
    batch: int = 0
    started: bool = False


class DistilledLoader:
    """Iterate over ``(images, labels)`` batches of a distilled image set; each ``iter()`` is a new epoch.

    The pictures are those of :class:`~dim_data.loading.DistilledDataset` with the same source, ``ipc``, seed
    and epoch. No worker processes, and unless ``cache`` says so no stored images or order: memory holds the
    generator and a few batches, whatever ``ipc`` is. Iterators may run side by side; each keeps the epoch it
    began with.

    Args:
        source: A :class:`Generator`, a folder, a bundled name such as ``"cifar10"`` or a Hub id.
        batch_size: Images in a batch.
        ipc: Images of each class in an epoch.
        device: Where batches are made; ``None`` means CUDA where there is one, else the CPU.
        transform: Maps each batch of images (B, C, H, W), for example ``loader.spec.normalize``; may be
            assigned later.
        seed: Any int, of pictures and order.
        shuffle: Put each epoch in a new order, a pure function of seed and epoch.
        drop_last: Leave out a last batch that is not full.
        revision: Branch, tag or commit, where ``source`` is a Hub id.
        token: Hub access token, for private repositories.
        dtype: ``torch.uint8``, or a floating-point type for images in [0, 1]; un-normalised.
        cache: Keep each decoded picture of a generator with stored codes, on ``device``, so that none is decoded
            twice: the same pictures, faster; see :class:`~dim_data.loading.PictureCache` for the memory it takes.

        soft_labels: Hand out, in place of classes, the probabilities that a teacher gives the pictures, where the
            generator stores those or the teacher: float32 (B, num_classes), which ``cross_entropy`` takes as classes.
            A share such as 0.5 hands out that much of them, the rest being the class.

    Attributes:
        generator: The :class:`Generator`, on ``device``.

    Raises:
        FileNotFoundError: No such source.
        RuntimeError: CUDA is asked for and there is none.
        TypeError: ``batch_size``, ``ipc``, ``seed`` or ``dtype`` has the wrong type.
        ValueError: ``batch_size`` or ``ipc`` is below 1, ``cache`` with a generator driven by noise, or
            ``soft_labels`` with one that stores none or past [0, 1].
    """

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
    ) -> None:
        self.batch_size, self.ipc = check_int("batch_size", batch_size, 1), check_int("ipc", ipc, 1)
        if not isinstance(dtype, torch.dtype) or not (dtype.is_floating_point or dtype == torch.uint8):
            raise TypeError(f"dtype must be torch.uint8 or a floating-point type such as torch.float32, got {dtype!r}")
        self.seed, self.shuffle, self.drop_last = check_int("seed", seed), shuffle, drop_last
        self.device, self.dtype, self.transform = resolve_device(device), dtype, transform
        self.generator = open_source(source, revision, self.device, token)
        self._painter = PictureCache(self.generator) if cache else self.generator
        self.soft_labels = check_soft_labels(self.generator, soft_labels)
        self._cursor = _Cursor(0)

    @property
    def spec(self) -> ImageSpec:
        """Shape, class names and normalisation of the images."""
        return self.generator.spec

    @property
    def epoch(self) -> int:
        """The epoch of the latest ``iter()``, or that of the first one, before it."""
        return self._cursor.epoch

    def set_epoch(self, epoch: int) -> None:
        """Make ``epoch`` that of the next ``iter()``; counting goes on from there.

        Raises:
            TypeError: ``epoch`` is not an int.
            ValueError: ``epoch`` is negative.
        """
        self._cursor = _Cursor(check_int("epoch", epoch, 0, MAX_EPOCH))

    def __len__(self) -> int:
        """Batches in an epoch."""
        total = self.ipc * self.spec.num_classes
        return total // self.batch_size if self.drop_last else -(-total // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Any, Tensor]]:
        """Begin the next epoch, or go on with a loaded one: ``(images, labels)`` on the device.

        Images are (B, C, H, W), transformed; labels are int64 (B,), or float32 (B, num_classes) if soft.
        """
        if self._cursor.started:
            self._cursor = _Cursor(self._cursor.epoch + 1)
        self._cursor.started = True
        return self._batches(self._cursor)

    def _batches(self, cursor: _Cursor) -> Iterator[tuple[Any, Tensor]]:
        for images, targets in self._paint(cursor.epoch, cursor.batch):
            cursor.batch += 1
            yield images if self.transform is None else self.transform(images), targets

    def _paint(self, epoch: int, first: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of an epoch from the ``first`` on, untransformed."""
        size = self.batch_size
        planned = max(1, PLANNED // size)
        painted = max(1, PAINTED.get(self.device.type, 0) // size)
        for start in range(first, len(self), planned):
            end = min(start + planned, len(self))
            labels, serials = self._order(epoch, start * size, end * size)
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
                if self.dtype != torch.uint8:
                    images = images.to(self.dtype).div_(255)
                yield from zip(images.split(size), answers.split(size), strict=True)

    def _order(self, epoch: int, start: int, end: int) -> tuple[Tensor, Tensor]:
        """Labels and serials of the images from ``start`` up to ``end`` in an epoch, on the CPU."""
        total = self.ipc * self.spec.num_classes
        indices = torch.arange(start, min(end, total))
        if self.shuffle:
            # No class is -1: these keys are apart from those of the pictures.
            keys = hash_keys(self.seed, torch.full_like(indices, -1), torch.full_like(indices, epoch))
            indices = permute(indices, torch.full_like(indices, total), keys)
        serials = epoch * self.ipc + torch.div(indices, self.spec.num_classes, rounding_mode="floor")
        return indices % self.spec.num_classes, serials

    def state_dict(self) -> dict[str, Any]:
        """Where the latest iterator stands: JSON-ready."""
        return {"settings": self._settings, "epoch": self._cursor.epoch, "batch": self._cursor.batch}

    @property
    def _settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("batch_size", "ipc", "seed", "shuffle")}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Let the next ``iter()`` go on after the last batch handed out when the state was taken.

        A state taken at the end of an epoch goes on with the next one.

        Raises:
            ValueError: The state was saved with other settings, or is not a loader's.
        """
        check_state(state_dict, self._settings, {"epoch", "batch"})
        epoch = check_int("epoch", state_dict["epoch"], 0, MAX_EPOCH)
        batch = check_int("batch", state_dict["batch"], 0)
        self._cursor = _Cursor(epoch, batch) if batch < len(self) else _Cursor(epoch + 1)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.spec.name!r}, batch_size={self.batch_size}, ipc={self.ipc}, "
            f"device={str(self.device)!r}, seed={self.seed}, shuffle={self.shuffle}, dtype={self.dtype})"
        )
