"""Real images to hold a generator against: as JPEG in as many bytes, and with its soft labels."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from dim_data import Generator
from dim_data.images import LabelledImages


def as_sheet(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Images (N, H, W, C) side by side in one nearly square sheet."""
    count, height, width, channels = images.shape
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    sheet = np.zeros((rows * columns, height, width, channels), np.uint8)
    sheet[:count] = images
    return (
        sheet.reshape(rows, columns, height, width, channels).swapaxes(1, 2).reshape(rows * height, columns * width, -1)
    )


def from_sheet(sheet: np.ndarray[Any, Any], count: int, size: int) -> np.ndarray[Any, Any]:
    """Invert :func:`as_sheet`."""
    rows, columns = sheet.shape[0] // size, sheet.shape[1] // size
    tiles = sheet.reshape(rows, size, columns, size, -1).swapaxes(1, 2)
    return tiles.reshape(rows * columns, size, size, -1)[:count]


def stored_images(data: LabelledImages, budget: int, quality: int, seed: int = 0) -> tuple[LabelledImages, int]:
    """Random real images, balanced, as one JPEG sheet of at most ``budget`` bytes: (decoded images, bytes)."""
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    by_class = [order[data.labels[order] == label] for label in range(data.spec.num_classes)]

    def encode(per_class: int) -> tuple[torch.Tensor, bytes]:
        index = torch.cat([members[:per_class] for members in by_class])
        pixels = as_sheet(data.images[index].permute(0, 2, 3, 1).numpy())
        file = io.BytesIO()
        Image.fromarray(pixels.squeeze()).save(file, "jpeg", quality=quality, optimize=True)
        return index, file.getvalue()

    low, high = 1, min(len(members) for members in by_class)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if len(encode(middle)[1]) <= budget else (low, middle - 1)
    index, blob = encode(low)
    sheet = np.asarray(Image.open(io.BytesIO(blob)))
    images = from_sheet(sheet.reshape(*sheet.shape[:2], -1), len(index), data.spec.size)
    tensor = torch.from_numpy(images.copy()).permute(0, 3, 1, 2)
    return LabelledImages(tensor, data.labels[index], data.spec), len(blob)


def with_soft_labels(data: LabelledImages, generator: Generator) -> LabelledImages:
    """Real training images with the soft labels that ``generator`` stores for them.

    Raises:
        ValueError: It does not store one for each image of the whole training set.
    """
    if not generator.config.soft_labels or generator.bank.counts.tolist() != torch.bincount(data.labels).tolist():
        raise ValueError(
            "--row real with soft labels wants a --source that stores a soft label for every training image"
        )
    soft = torch.empty(len(data), data.spec.num_classes)
    stored = generator.bank.soft.float()
    soft[data.labels.argsort(stable=True)] = stored / stored.sum(1, keepdim=True)
    return replace(data, soft=soft)
