"""The pictures of a loader one by one, as frameworks and scripts ask for them."""

from __future__ import annotations

import operator
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from dim_data.generator import Generator, blended
from dim_data.images import ImageSpec, torch_defaults
from dim_data.loading.keeping import CachingPainter
from dim_data.loading.progress import Progress
from dim_data.loading.serials import serials_at

__all__ = ["LoaderPictures", "as_dtype"]

NOT_FOLLOWED = (
    "a loader's batches do not follow dataset.{}: assign loader.transform, which maps a batch of images, or put a "
    "DataLoader around a DistilledDataset, whose data, targets and transforms are your own"
)


class _Unedited(list[int]):
    def __setitem__(self, *_: Any) -> None:
        raise TypeError(NOT_FOLLOWED.format("targets"))


class LoaderPictures(Dataset[tuple[Tensor, Tensor]]):
    """The pictures of the epoch that a loader is in, by index: what frameworks read as ``loader.dataset``.

    Its items are those of the loader's batches, untransformed. To train on, take the loader itself or a
    :class:`~dim_data.loading.DistilledDataset`: these pictures stay the same until the loader's next pass.

    Args:
        painter: Paints them: the generator, or a cache around it.
        generator: The generator.
        ipc: Images of each class.
        seed: Of the pictures.
        refresh: The share of them that is new in each epoch.
        soft_labels: The share of soft labels in the labels.
        dtype: Of the images.
        progress: Of the loader.
    """

    def __init__(
        self,
        painter: Generator | CachingPainter,
        generator: Generator,
        *,
        ipc: int,
        seed: int,
        refresh: float,
        soft_labels: float,
        dtype: torch.dtype,
        progress: Progress,
    ) -> None:
        self.painter, self.generator, self.ipc, self.seed = painter, generator, ipc, seed
        self.refresh, self.soft_labels, self.dtype, self._progress = refresh, soft_labels, dtype, progress

    @property
    def spec(self) -> ImageSpec:
        """Shape, class names and normalisation of the images."""
        return self.generator.spec

    @cached_property
    def classes(self) -> list[str]:
        """Class names, in label order."""
        return list(self.spec.classes)

    @cached_property
    def class_to_idx(self) -> dict[str, int]:
        """Label of each class name."""
        return {name: label for label, name in enumerate(self.classes)}

    @cached_property
    def targets(self) -> list[int]:
        """Class of each index; batches do not follow it, so it cannot be edited."""
        return _Unedited(list(range(self.spec.num_classes)) * self.ipc)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("data", "targets", "transform", "target_transform"):
            raise AttributeError(NOT_FOLLOWED.format(name))
        super().__setattr__(name, value)

    def serials(self, indices: Tensor, epoch: int) -> Tensor:
        """Serials of the pictures at ``indices``, int64 (B,), in ``epoch``: int64 (B,)."""
        epochs, classes = torch.full_like(indices, epoch), self.spec.num_classes
        return serials_at(indices, epochs, ipc=self.ipc, classes=classes, refresh=self.refresh)

    def __len__(self) -> int:
        return self.ipc * self.spec.num_classes

    @torch_defaults(painting=True)
    def __getitem__(self, index: Any) -> tuple[Tensor, Tensor]:
        """Image (C, H, W) and label of ``index``, on the loader's device; ``IndexError`` past either end."""
        place = operator.index(index)
        if not -len(self) <= place < len(self):
            raise IndexError(f"index {place} is out of range: this loader has {len(self)} pictures in an epoch")
        indices = torch.tensor([place % len(self)])
        labels, serials = indices % self.spec.num_classes, self.serials(indices, self._progress.cursor.epoch)
        images = self.painter.synthesize(labels, serials, self.seed)
        targets = labels.to(images.device)
        if self.soft_labels:
            targets = blended(self.painter.soft_labels(labels, serials, self.seed, images), labels, self.soft_labels)
        return as_dtype(images, self.dtype)[0], targets[0]


def as_dtype(images: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8 images as they are, or as floats in [0, 1]."""
    return images if dtype == torch.uint8 else images.to(dtype).div_(255)
