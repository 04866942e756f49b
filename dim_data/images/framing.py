"""Pictures as squares of one size: what may come in, and how photos are resized and cropped."""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise

from PIL import Image

__all__ = ["Frame", "say_sizes"]

USUAL_SIZE = 64
"""What errors propose for large photos."""


def say_sizes(sizes: Collection[int]) -> str:
    """``"28 to 32, 49 to 64"``, or ``"28, 32, 36 ... 128"`` for sizes that are equally far apart."""
    ordered = sorted(sizes)
    gaps = {after - before for before, after in pairwise(ordered)}
    if len(ordered) > 4 and len(gaps) == 1 and gaps != {1}:
        return f"{', '.join(map(str, ordered[:3]))} ... {ordered[-1]}"
    runs: list[list[int]] = []
    for size in ordered:
        if runs and size == runs[-1][-1] + 1:
            runs[-1].append(size)
        else:
            runs.append([size])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)


class Frame:
    """The one square size that all pictures of a set have, or get.

    Args:
        size: Pixels to resize and crop to; ``None`` wants pictures that are all of one size already.
        sizes: The sizes that may be.
        owner: Whose size is wanted, for messages, where ``sizes`` is a single one.

    Attributes:
        side: Height and width in pixels; ``None`` until the first picture tells.

    Raises:
        ValueError: ``size`` is none of ``sizes``.
    """

    def __init__(self, size: int | None, sizes: Collection[int], owner: str = "") -> None:
        if size is not None and (isinstance(size, bool) or size not in sizes):
            wanted = f"{owner} images have" if owner else "it must be one of"
            raise ValueError(f"size={size!r} cannot be used: {wanted} {say_sizes(sizes)} pixels")
        self.size = self.side = size
        self.sizes, self.owner = sizes, owner

    def check(self, width: int, height: int, where: str) -> None:
        """Refuse a picture that is not of the one size; nothing is refused where ``size`` was given.

        Raises:
            ValueError: It is no square, of no size that may be, or of another size than the one before.
        """
        if self.size is not None:
            return
        if self.side is None and width == height and height in self.sizes:
            self.side = height
        if (width, height) == (self.side, self.side):
            return
        near = min(self.sizes, key=lambda size: abs(size - min(width, height, USUAL_SIZE)))
        if self.owner:
            reason = f"{self.owner} images are {near}x{near}"
        elif self.side is not None:
            reason, near = f"those before are {self.side}x{self.side}", self.side
        elif width != height:
            reason = "images must be square"
        else:
            reason = f"images must have {say_sizes(self.sizes)} pixels"
        raise ValueError(
            f"{where}: {width}x{height} pixels, but {reason}; size={near} (--size {near}) resizes and crops every image"
        )

    def draft(self, image: Image.Image) -> None:
        """Have a JPEG decoded at an eighth to a half of its size where that is at least twice of what is wanted."""
        if self.size is not None:
            image.draft(None, (2 * self.size, 2 * self.size))

    def fit(self, image: Image.Image) -> Image.Image:
        """Resize the shorter side, antialiased, and crop the centre, as torchvision's Resize and CenterCrop do."""
        size = self.size
        if size is None or image.size == (size, size):
            return image
        short = min(image.size)
        width, height = (int(size * length / short) for length in image.size)
        resized = image.resize((width, height), Image.Resampling.BILINEAR)
        left, top = round((width - size) / 2), round((height - size) / 2)
        return resized.crop((left, top, left + size, top + size))
