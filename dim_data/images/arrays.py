"""Images that lie in arrays already: pairs of tensors, and the known datasets' own files."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dim_data.images.npz import read_npz
from dim_data.images.pixels import Pixels, numbers
from dim_data.images.specs import ImageSpec

__all__ = ["Arrays", "read_arrays", "read_known", "read_labels"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Arrays:
    """Images and labels in arrays or tensors of any layout, and what is known of them, as of ``Pictures``."""

    name: str
    images: Any
    labels: Any
    names: tuple[str, ...] | None = None
    known: ImageSpec | None = None

    @property
    def bytes(self) -> int:
        """Pixels of all images, in eight bits; 0 of what does not say its shape."""
        return math.prod(getattr(self.images, "shape", (0,)))


def read_labels(labels: Any, count: int) -> Array:
    """The labels of ``count`` images, (count,).

    Raises:
        ValueError: There are not as many.
    """
    labels = numbers(labels, "labels")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]  # MedMNIST stores a column
    if labels.shape != (count,):
        raise ValueError(f"{count} images need as many labels, got labels of shape {tuple(labels.shape)}")
    return labels


def read_arrays(images: Any, labels: Any, pixels: Pixels) -> tuple[Array, Array]:
    """Images in any layout as uint8 (N, C, S, S), sharing memory if they are that already; labels (N,).

    Raises:
        ValueError: They cannot be used.
    """
    images = numbers(images, "images")
    if images.ndim == 3:
        images = images[:, None]
    if images.ndim != 4:
        raise ValueError(f"images must be (N, C, H, W), (N, H, W) or (N, H, W, C), got shape {tuple(images.shape)}")
    if images.shape[1] not in (1, 3) and images.shape[3] in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    if len(images) == 0:
        raise ValueError("the data is empty: there is no image in it")
    labels = read_labels(labels, len(images))
    channels, height, width = images.shape[1:]
    if channels not in (1, 3):
        found = channels if channels <= 4 or images.shape[3] > 4 else images.shape[3]
        raise ValueError(f"images must have 1 or 3 channels, got {found}")
    pixels.frame.check(width, height, "images")
    images = pixels.array(images, "images")
    side = pixels.frame.size
    if side is not None and (height, width) != (side, side):
        fitted = np.empty((len(images), channels, side, side), np.uint8)
        for image, place in zip(images, fitted, strict=True):
            rows = np.ascontiguousarray(image.transpose(1, 2, 0))
            picture = pixels.frame.fit(Image.fromarray(rows if channels == 3 else rows[..., 0]))
            place[...] = np.asarray(picture).reshape(side, side, channels).transpose(2, 0, 1)
        images = fitted
    return np.require(images, requirements=["C", "W"]), labels


def read_known(name: str, split: str, root: str | Path | None) -> tuple[Any, Any]:
    """Images and labels of a known dataset: ``<root>/<name>.npz`` if there, else torchvision's files.

    Raises:
        FileNotFoundError: Neither is there, or no ``root`` is given.
        ImportError: Reading them needs scipy.
        ValueError: The set has no such split.
    """
    if root is None:
        raise FileNotFoundError(f"say where the files of {name!r} are: root= (--data-root, or DIM_DATA_ROOT)")
    root = Path(root).expanduser()
    packed = root / f"{name}.npz"
    if packed.is_file():
        return read_npz(packed, split)
    if split == "val":
        raise ValueError(f"{name!r} has no split 'val', only 'train' and 'test'")
    from torchvision import datasets

    try:
        if name == "svhn":
            svhn = datasets.SVHN(str(root), split=split, download=False)
            return svhn.data, svhn.labels
        kind = {"cifar10": datasets.CIFAR10, "mnist": datasets.MNIST, "fashion_mnist": datasets.FashionMNIST}[name]
        dataset = kind(str(root), train=split == "train", download=False)
    except RuntimeError as error:
        raise FileNotFoundError(
            f"no {name} under {str(root)!r} (neither {packed.name} nor torchvision's files)"
        ) from error
    except ImportError as error:
        raise ImportError(f"{name} in torchvision's files needs scipy: pip install dim-data[svhn]") from error
    return dataset.data, dataset.targets
