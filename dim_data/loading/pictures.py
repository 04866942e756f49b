"""The pictures of a loader one by one, as frameworks and scripts ask for them."""

from __future__ import annotations

import operator
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from dim_data.generator import Generator, blended
from dim_data.images import ImageSpec
from dim_data.loading.cache import PictureCache
from dim_data.loading.progress import Progress

__all__ = ["LoaderPictures", "as_dtype"]


class LoaderPictures(Dataset[tuple[Tensor, Tensor]]):
    """The pictures of the epoch that a loader is in, by index: what frameworks read as ``loader.dataset``.

    Its items are those of the loader's batches, untransformed. To train on, take the loader itself or a
    :class:`~dim_data.loading.DistilledDataset`: these pictures stay the same until the loader's next pass.

    Args:
        painter: Paints them: the generator, or a cache around it.
        generator: The generator.
        ipc: Images of each class.
        seed: Of the pictures.
        soft_labels: The share of soft labels in the labels.
        dtype: Of the images.
        progress: Of the loader.
    """

    def __init__(
        self,
        painter: Generator | PictureCache,
        generator: Generator,
        *,
        ipc: int,
        seed: int,
        soft_labels: float,
        dtype: torch.dtype,
        progress: Progress,
    ) -> None:
        self._painter, self.generator, self.ipc, self.seed = painter, generator, ipc, seed
        self.soft_labels, self.dtype, self._progress = soft_labels, dtype, progress

    @property
    def spec(self) -> ImageSpec:
        """Shape, class names and normalisation of the images."""
        return self.generator.spec

    @property
    def classes(self) -> list[str]:
        """Class names, in label order."""
        return list(self.spec.classes)

    @property
    def class_to_idx(self) -> dict[str, int]:
        """Label of each class name."""
        return {name: label for label, name in enumerate(self.spec.classes)}

    @cached_property
    def targets(self) -> list[int]:
        """Class of each index."""
        return list(range(self.spec.num_classes)) * self.ipc

    def __len__(self) -> int:
        return self.ipc * self.spec.num_classes

    def __getitem__(self, index: Any) -> tuple[Tensor, Tensor]:
        """Image (C, H, W) and label of ``index``, on the loader's device; ``IndexError`` past either end."""
        place = operator.index(index)
        if not -len(self) <= place < len(self):
            raise IndexError(f"index {place} is out of range: this loader has {len(self)} pictures in an epoch")
        serial, label = divmod(place % len(self), self.spec.num_classes)
        labels, serials = torch.tensor([label]), torch.tensor([self._progress.cursor.epoch * self.ipc + serial])
        images = self._painter.synthesize(labels, serials, self.seed)
        targets = labels.to(images.device)
        if self.soft_labels:
            targets = blended(self.generator.soft_labels(labels, serials, self.seed, images), labels, self.soft_labels)
        return as_dtype(images, self.dtype)[0], targets[0]


def as_dtype(images: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8 images as they are, or as floats in [0, 1]."""
    return images if dtype == torch.uint8 else images.to(dtype).div_(255)
