"""The batches of a loader's pass, painted in order."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from dim_data.generator import blended
from dim_data.images import in_steps
from dim_data.loading.orders import EpochSampler
from dim_data.loading.pictures import LoaderPictures, as_dtype
from dim_data.loading.progress import Cursor
from dim_data.loading.shares import Share

__all__ = ["paint_batches"]

PLANNED = 8192
"""Images whose places in the epoch are worked out at once, on the CPU, where that needs no wait for the device."""
PAINTED = {"cuda": 1024}
"""Images painted at once, by device, if a batch is smaller: on a GPU it is the launching of kernels that takes time."""


@in_steps(painting=True)
def paint_batches(
    pictures: LoaderPictures, sampler: EpochSampler, size: int, device: torch.device, cursor: Cursor, share: Share
) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches that a rank has from ``cursor`` on, untransformed: images (B, C, H, W) and targets, on ``device``.

    Args:
        pictures: Of the loader.
        sampler: Of the loader.
        size: Images in a batch.
        device: Of the generator.
        cursor: Where to begin; what becomes of it later does not matter.
        share: Of the rank.
    """
    generator, painter, seed, soft = pictures.generator, pictures.painter, pictures.seed, pictures.soft_labels
    epoch, first, stored = cursor.epoch, cursor.place, generator.source.finite
    planned = max(1, PLANNED // size) * size
    painted = max(1, PAINTED.get(device.type, 0) // size)
    for start in range(0, sampler.left(first, share), planned):
        indices = sampler.indices(epoch, first, share, start, start + planned)
        labels, serials = indices % generator.spec.num_classes, pictures.serials(indices, epoch)
        targets: Tensor = labels.to(device)
        if soft and stored:
            targets = blended(generator.soft_labels(labels, serials, seed), labels, soft)
        rows = generator.rows(labels, serials, seed) if stored else None
        for low in range(0, len(labels), painted * size):
            part = slice(low, low + painted * size)
            answers = targets[part]
            if rows is not None:
                images = painter.decode(rows[part])
            else:
                images = painter.synthesize(labels[part], serials[part], seed)
                if soft:
                    answers = blended(
                        painter.soft_labels(labels[part], serials[part], seed, images), labels[part], soft
                    )
            images = as_dtype(images, pictures.dtype)
            yield from zip(images.split(size), answers.split(size), strict=True)
