"""Facts about image sets: shape, class names and normalisation, once, as data.

An :class:`ImageSpec` travels with every generator. Public images are un-normalised (floats in
[0, 1] or uint8); :meth:`ImageSpec.normalize` is the only place where that changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["CUT_FROM_PHOTOS", "HELD_AS", "KNOWN_SPECS", "SIZE_RANGE", "ImageSpec"]

SIZE_RANGE = (28, 128)
MAX_CLASSES = 10_000


@dataclass(frozen=True)
class ImageSpec:
    """What an image set looks like.

    Args:
        name: A short identifier such as ``"cifar10"``.
        channels: 1 (grey) or 3 (RGB).
        size: Height and width in pixels, 28 to 128.
        classes: Class names, in label order; at least two.
        mean: Per-channel mean of the [0, 1] images.
        std: Per-channel standard deviation of the [0, 1] images, all positive.
        mirror: Whether a mirrored image is of the same class, so that flips may augment it: not for digits.

    Raises:
        TypeError: A field has the wrong type.
        ValueError: A field is out of range, or ``name``, ``mean`` or ``std`` has the wrong type.
    """

    name: str
    channels: int
    size: int
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mirror: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not 0 < len(self.name) <= 200:
            raise ValueError(f"ImageSpec.name must be a string of 1 to 200 characters, got {self.name!r}")
        for field in ("channels", "size"):
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"ImageSpec.{field} must be an int, got {value!r}")
        if self.channels not in (1, 3):
            raise ValueError(f"ImageSpec.channels must be 1 (grey) or 3 (RGB), got {self.channels}")
        low, high = SIZE_RANGE
        if not low <= self.size <= high:
            raise ValueError(f"ImageSpec.size must be {low} to {high} pixels, got {self.size}")
        if not isinstance(self.classes, tuple) or not all(isinstance(c, str) for c in self.classes):
            raise TypeError("ImageSpec.classes must be a tuple of strings")
        if not 2 <= len(self.classes) <= MAX_CLASSES:
            raise ValueError(f"ImageSpec.classes must name 2 to {MAX_CLASSES} classes, got {len(self.classes)}")
        for field in ("mean", "std"):
            values = getattr(self, field)
            if not isinstance(values, tuple) or len(values) != self.channels:
                raise ValueError(f"ImageSpec.{field} must hold {self.channels} numbers, got {values!r}")
            if not all(isinstance(v, float | int) and not isinstance(v, bool) and 0 <= v <= 1 for v in values):
                raise ValueError(f"ImageSpec.{field} must lie in [0, 1], got {values!r}")
        if not isinstance(self.mirror, bool):
            raise TypeError(f"ImageSpec.mirror must be a bool, got {self.mirror!r}")
        if not all(v > 1e-4 for v in self.std):
            raise ValueError(f"ImageSpec.std must be positive, got {self.std!r}")

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.classes)

    @property
    def doublings(self) -> int:
        """How often 32 pixels double until they reach the size: 0 up to 32 pixels, 1 up to 64, 2 up to 128."""
        return max(0, (self.size - 1).bit_length() - 5)

    def normalize(self, images: Tensor) -> Tensor:
        """Map images (..., C, H, W) in [0, 1], or uint8 in [0, 255], to zero mean and unit variance per channel."""
        if images.dtype == torch.uint8:
            images = images.float() / 255
        mean, std = self._moments(images)
        return (images - mean) / std

    def denormalize(self, images: Tensor) -> Tensor:
        """Invert :meth:`normalize`."""
        mean, std = self._moments(images)
        return images * std + mean

    def _moments(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of each channel, each (C, 1, 1), beside ``images``.

        Raises:
            TypeError: ``images`` are whole numbers, which would make them 0.
        """
        if not images.is_floating_point():
            raise TypeError(f"images must be floats in [0, 1], got {images.dtype}")
        mean, std = (images.new_tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return mean, std

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping that :meth:`from_dict` reads back."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ImageSpec:
        """Read a mapping made by :meth:`to_dict`; unknown or missing keys raise ``ValueError``."""
        fields = set(cls.__dataclass_fields__)
        if not isinstance(values, Mapping) or set(values) != fields:
            found = sorted(map(str, values)) if isinstance(values, Mapping) else repr(values)
            raise ValueError(f"an image spec has the keys {sorted(fields)}, got {found}")
        arguments: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**arguments)


_DIGITS = tuple(str(d) for d in range(10))

KNOWN_SPECS: dict[str, ImageSpec] = {
    spec.name: spec
    for spec in (
        ImageSpec(
            "cifar10",
            3,
            32,
            ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
            (0.4914, 0.4822, 0.4465),
            (0.2023, 0.1994, 0.2010),
            mirror=True,
        ),
        ImageSpec("svhn", 3, 32, _DIGITS, (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
        ImageSpec("mnist", 1, 28, _DIGITS, (0.1307,), (0.3081,)),
        ImageSpec(
            "fashion_mnist",
            1,
            28,
            ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
            (0.2860,),
            (0.3530,),
            mirror=True,
        ),
    )
}
"""The image sets of the DiM paper; classes as torchvision names them, statistics as the paper uses them."""

HELD_AS = {"mnist": "tensors", "fashion_mnist": "tensors", "svhn": "planes"}
"""How torchvision's sets hold pictures and labels, where not in an array (N, H, W, C) and a list as CIFAR10 does."""

CUT_FROM_PHOTOS = {"svhn": 6}
"""Sets in which several images are cut from one photo, and follow one another: how many at most. They are alike, so a
part that is held out takes photos whole."""
