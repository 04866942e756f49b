"""Differentiable augmentations of image batches: pure functions of (images, rng).

Images are float (B, C, H, W) in [0, 1]; each image gets its own draw. To give two batches the same draw,
use :func:`augment_pair`. Where a batch is shared, each image gets what it would have got in the whole of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dim_data.images.portions import WHOLE, Portion
from dim_data.images.specs import ImageSpec

__all__ = ["AUGMENTATIONS", "augment", "augment_pair", "cut", "permitted"]


def _uniform(images: Tensor, rng: torch.Generator, portion: Portion, low: float, high: float) -> Tensor:
    draw = torch.rand(portion.whole(len(images)), 1, 1, 1, generator=rng) * (high - low) + low
    return portion.of(draw).to(images.device, images.dtype)


def _integers(images: Tensor, rng: torch.Generator, portion: Portion, low: int, high: int) -> Tensor:
    draw = torch.randint(low, high + 1, (portion.whole(len(images)),), generator=rng)
    return portion.of(draw).to(images.device)


def flip(images: Tensor, rng: torch.Generator, portion: Portion = WHOLE) -> Tensor:
    """Mirror each image left to right with probability one half."""
    return torch.where(_uniform(images, rng, portion, 0, 1) < 0.5, images.flip(-1), images)


def crop(images: Tensor, rng: torch.Generator, portion: Portion = WHOLE) -> Tensor:
    """Shift each image by up to an eighth of its size on both axes, zeros entering (4 of 32 pixels)."""
    size = images.shape[2]
    pad = size // 8
    down, right = _integers(images, rng, portion, 0, 2 * pad), _integers(images, rng, portion, 0, 2 * pad)
    return cut(F.pad(images, (pad, pad, pad, pad)), down, right, size)


def cut(images: Tensor, down: Tensor, right: Tensor, size: int) -> Tensor:
    """Cut a square out of each image.

    Args:
        images: (B, C, H, W).
        down: int64 (B,), the first row of each square.
        right: int64 (B,), its first column.
        size: Pixels of its side.
    """
    batch, channels, _, width = images.shape
    along = torch.arange(size, device=images.device)
    rows, columns = (down[:, None] + along)[:, None, :, None], (right[:, None] + along)[:, None, None, :]
    taken = images.gather(2, rows.expand(batch, channels, size, width))
    return taken.gather(3, columns.expand(batch, channels, size, size))


def color(images: Tensor, rng: torch.Generator, portion: Portion = WHOLE) -> Tensor:
    """Jitter brightness (+-0.5), saturation (x 0 to 2) and contrast (x 0.5 to 1.5), as DSA does."""
    images = images + _uniform(images, rng, portion, -0.5, 0.5)
    grey = images.mean(1, keepdim=True)
    images = (images - grey) * _uniform(images, rng, portion, 0, 2) + grey
    level = images.mean((1, 2, 3), keepdim=True)
    return (images - level) * _uniform(images, rng, portion, 0.5, 1.5) + level


def cutout(images: Tensor, rng: torch.Generator, portion: Portion = WHOLE) -> Tensor:
    """Set a square of half the side, centred anywhere, to zero."""
    height, width = images.shape[2:]
    y, x = _integers(images, rng, portion, 0, height), _integers(images, rng, portion, 0, width)
    down = torch.arange(height, device=images.device) - y[:, None] + height // 4
    right = torch.arange(width, device=images.device) - x[:, None] + width // 4
    rows, columns = (down >= 0) & (down < height // 2), (right >= 0) & (right < width // 2)
    return images.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], 0)


AUGMENTATIONS: dict[str, Callable[[Tensor, torch.Generator, Portion], Tensor]] = {
    "flip": flip,
    "crop": crop,
    "color": color,
    "cutout": cutout,
}


def augment(images: Tensor, names: Sequence[str], rng: torch.Generator, portion: Portion = WHOLE) -> Tensor:
    """Apply the named augmentations in order.

    Args:
        images: float (B, C, H, W) in [0, 1].
        names: Keys of :data:`AUGMENTATIONS`.
        rng: A CPU generator; it advances, as for the whole batch.
        portion: Which of the batch the images are.

    Returns:
        float (B, C, H, W); ``color`` may leave [0, 1].

    Raises:
        ValueError: A name is unknown.
    """
    for name in names:
        if name not in AUGMENTATIONS:
            raise ValueError(f"unknown augmentation {name!r}: choose from {sorted(AUGMENTATIONS)}")
        images = AUGMENTATIONS[name](images, rng, portion)
    return images


def augment_pair(
    first: Tensor, second: Tensor, names: Sequence[str], rng: torch.Generator, portion: Portion = WHOLE
) -> tuple[Tensor, Tensor]:
    """Augment two batches of one shape with the same draw, image by image (siamese augmentation)."""
    state = rng.get_state()
    first = augment(first, names, rng, portion)
    rng.set_state(state)
    return first, augment(second, names, rng, portion)


def permitted(names: Sequence[str], spec: ImageSpec) -> tuple[str, ...]:
    """``names`` without ``flip`` where a mirrored image would be of another class."""
    return tuple(name for name in names if name != "flip" or spec.mirror)
