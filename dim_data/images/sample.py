"""The bundled sample of real test images, so that a demonstration needs no download."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dim_data.images.labelled import LabelledImages
from dim_data.images.specs import KNOWN_SPECS

__all__ = ["bundled_test_sample"]

SHEET = Path(__file__).parents[1] / "bundled" / "cifar10_test.webp"
COLUMNS, PER_CLASS = 25, 100


def bundled_test_sample() -> LabelledImages:
    """The first 100 test images of each class of CIFAR-10 (Krizhevsky 2009), lossless, sorted by class.

    Enough for a figure to two or three points; publish only what the full test set of 10,000 says.
    """
    spec = KNOWN_SPECS["cifar10"]
    with Image.open(SHEET) as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    rows = len(pixels) // spec.size
    tiles = pixels.reshape(rows, spec.size, COLUMNS, spec.size, 3).transpose(0, 2, 4, 1, 3)
    images = torch.from_numpy(np.ascontiguousarray(tiles)).flatten(0, 1)
    return LabelledImages(images, torch.arange(spec.num_classes).repeat_interleave(PER_CLASS), spec)
