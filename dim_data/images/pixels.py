"""Pixels of every kind as eight-bit grey or RGB: what has one right meaning is converted, the rest refused.

======================  ==================================================================
16 bits                 divided by 257
floats                  times 255 where all lie in [0, 1]; kept where whole numbers to 255
integers, booleans      kept from 0 to 255; ``True`` is 255
palettes, CMYK, YCbCr   RGB
transparency            laid on white, and counted
EXIF orientation        applied to files
several frames          the first, and counted
======================  ==================================================================
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import PIL
import torch
from PIL import Image, ImageFile, ImageOps

from dim_data.images.framing import Frame
from dim_data.images.modes import (
    GREY_MODES,
    brightest_of,
    check_mode,
    image_formats,
    is_deep,
    orientation,
)
from dim_data.images.notes import Names, Notes
from dim_data.images.warn import warn_caller

__all__ = ["Pixels", "numbers"]

Array = np.ndarray[Any, Any]

FEW_LEVELS, DIM = 64, 32
DARKEST = 4096
"""16-bit images below that are of fewer bits, and would be black."""


def numbers(values: Any, what: str) -> Array:
    """Numbers, or texts, in whatever holds them, as an array that shares their memory where it can.

    Raises:
        ValueError: They are neither.
    """
    try:
        if isinstance(values, torch.Tensor):
            values = values.detach().cpu()
            return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
        found = np.asarray(values)
        if found.dtype.kind in "biufU":
            return found
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"the {what} are not numbers: {error}") from error
    raise ValueError(f"the {what} are not numbers: got {found.dtype} of shape {found.shape}")


class Pixels:
    """Makes eight-bit pictures of whatever comes, in any thread, and remembers what has to be said of it.

    Args:
        frame: The size that pictures have or get.

    Attributes:
        skipped: Files that are no pictures.
        notes: What was noted of the pictures.
    """

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.skipped, self.notes = Names(), Notes()
        self._formats = sorted(set(image_formats().values()))
        self._lock = threading.Lock()

    @property
    def identity(self) -> dict[str, Any]:
        """What its pictures depend on, but for the files, in plain values."""
        return {"size": self.frame.size, "pillow": PIL.__version__}

    # Files ---------------------------------------------------------------------------------------------

    def peek(self, path: Path, where: str) -> bool:
        """Check a file by its first bytes, before anything is decoded: whether it is grey.

        Raises:
            ValueError: It is damaged, of a kind or a size that cannot be used.
        """
        with path.open("rb") as file, self._opened(file, where) as image:
            width, height, mode, kind = *image.size, image.mode, image.format
        check_mode(mode, kind, where)
        self.frame.check(width, height, where)
        return mode in GREY_MODES

    def file(self, file: BinaryIO, where: str) -> Array:
        """Decode a file: uint8 (H, W) or (H, W, 3)."""
        with self._opened(file, where) as image:
            if image.format == "PNG":
                image.verify()  # decoding asks no checksum
        file.seek(0)
        with self._opened(file, where) as image:
            self.frame.draft(image)
            deep = is_deep(image)
            image.load()
            if deep:  # Pillow keeps the upper eight bits of each channel
                with self._lock:
                    self.notes.deepest = max(257 * brightest_of(image), self.notes.deepest or 0)
            if image.format != "MPO" and getattr(image, "is_animated", False):  # a phone's JPEG has previews in it
                self.notes.several.add(where)
        return self._picture(image, where)

    # Whatever a dataset hands out ----------------------------------------------------------------------

    def item(self, value: Any, where: str) -> Array:
        """A picture in any form: uint8 (H, W) or (H, W, 3).

        Args:
            value: A PIL image; an array, tensor or nested list (H, W), (C, H, W) or (H, W, C); a mapping with the
                ``bytes`` or the ``path`` of a file; such bytes or a path.
            where: Its name in messages.

        Raises:
            ValueError: It cannot be used.
        """
        if isinstance(value, Mapping) and {"bytes", "path"} & value.keys():
            value = value.get("path") if value.get("bytes") is None else value["bytes"]
        if isinstance(value, bytes):
            return self.file(io.BytesIO(value), where)
        if isinstance(value, str | Path):
            with Path(value).open("rb") as file:
                return self.file(file, str(value))
        if isinstance(value, Image.Image):
            try:
                value.load()  # a file that was opened is not read before
            except OSError as error:
                raise ValueError(f"{where} is not a readable image: {error}") from error
            return self._picture(value, where)
        array = self.array(numbers(value, f"pixels of {where}"), where)
        if array.ndim == 3 and array.shape[0] in (1, 3):
            array = array.transpose(1, 2, 0)
        if array.ndim == 3 and array.shape[2] == 1:
            array = array[:, :, 0]
        if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3):
            raise ValueError(f"{where}: images must be (H, W), or have 1 or 3 channels, got shape {array.shape}")
        return self._framed(Image.fromarray(np.ascontiguousarray(array)), where)

    def array(self, values: Array, where: str) -> Array:
        """Pixels of any shape as uint8; the same array if they are that already.

        Raises:
            ValueError: They have no one meaning as eight bits.
        """
        kind, out = values.dtype.kind, np.empty(values.shape, np.uint8)
        if values.dtype == np.uint8 or not values.size:
            return values.astype(np.uint8, copy=False)
        if kind not in "biuf":
            raise ValueError(f"{where}: pixels must be numbers, got {values.dtype}")
        low, high = (float(bound) for bound in (values.min(), values.max()))
        if kind == "f":
            with self._lock:
                factor = self._float_factor(values, low, high, where)
        elif kind == "u" and values.dtype.itemsize == 2:
            with self._lock:
                self.notes.deepest = max(int(high), self.notes.deepest or 0)
        elif kind in "iu" and not 0 <= low <= high <= 255:
            raise ValueError(
                f"{where}: pixels of {values.dtype} from {low:.0f} to {high:.0f} have no one meaning: give uint8, "
                f"uint16 over its whole range, or floats in [0, 1]"
            )
        for part, result in zip(_parts(values), _parts(out), strict=True):
            if kind == "f":
                np.rint(part * factor, out=result, casting="unsafe")
            elif kind == "u" and values.dtype.itemsize == 2:
                result[...] = (part.astype(np.uint32) + 128) // 257
            else:
                result[...] = part * np.uint8(255) if kind == "b" else part
        return out

    # At the end ----------------------------------------------------------------------------------------

    def conclude(self, brightest: int, levels: int | None = None) -> None:
        """Say what was skipped, changed or lost, by one warning each, and refuse a set that came out black.

        Args:
            brightest: The largest pixel of all of them, 0 to 255.
            levels: How many of the 256 levels occur, where that is known: of 16 bits it must be.

        Raises:
            ValueError: They were scaled by too much, or by too little.
        """
        if self.notes.deepest is not None and self.notes.deepest < DARKEST:
            raise ValueError(
                f"16-bit images are scaled from [0, 65535], and these reach {self.notes.deepest}, almost black: scale "
                f"them to the whole range, or give uint8"
            )
        if brightest <= 1:
            raise ValueError(
                f"the brightest pixel of all images is {brightest} of 255, {'almost ' * brightest}black: give 0 and "
                f"255 (or booleans) for masks, floats for [0, 1]"
            )
        if self.notes.deepest is not None and levels is not None and levels < FEW_LEVELS:
            warn_caller(
                f"16-bit images are scaled from [0, 65535], and these have {levels} of 256 levels then: scale what "
                f"they hold to the whole range, to lose less"
            )
        elif brightest < DIM:
            warn_caller(f"the brightest pixel of all images is {brightest} of 255, so that they are all but black")
        self.skipped.say("skipped {} (no images, or hidden): {}", "file")
        self.notes.transparent.say("laid {} with transparent parts on white: {}", "image")
        self.notes.several.say("read the first frame alone of {}: {}", "image")

    # How -----------------------------------------------------------------------------------------------

    def _float_factor(self, values: Array, low: float, high: float, where: str) -> int:
        """What floats are multiplied by, 255 or 1: the same for all pictures of a set."""
        if not np.isfinite([low, high]).all():
            raise ValueError(f"{where}: the images hold NaN or infinite pixels")
        top, other = self.notes.floats
        if low >= 0 and high > 0 and other and (top > 1) != (high > 1):
            raise ValueError(
                f"{where}: float images must all have one range, got up to {high:.3g} here and {top:.3g} in {other}"
            )
        if low < 0 or high > 255 or (high > 1 and any((part != np.rint(part)).any() for part in _parts(values))):
            raise ValueError(
                f"{where}: float images must lie in [0, 1], got [{low:.3g}, {high:.3g}]: undo the normalisation, "
                f"or give whole numbers up to 255"
            )
        if high > top:
            self.notes.floats = (high, where)
        return 1 if high > 1 else 255

    def _picture(self, image: Image.Image, where: str) -> Array:
        """A decoded picture as it should be seen."""
        mode, kind = image.mode, image.format
        check_mode(mode, kind, where)
        # What a dataset converted or turned by hand keeps the file's notes on both, which no longer hold.
        of_file = isinstance(image, ImageFile.ImageFile)
        if of_file and kind != "TIFF" and orientation(image) != 1:  # Pillow turns those itself
            image = ImageOps.exif_transpose(image)
        if mode.startswith("I"):
            image = Image.fromarray(self.array(np.asarray(image).astype(np.uint16), where))
        elif mode in ("LA", "La", "PA", "RGBA", "RGBa") or ("transparency" in image.info and (of_file or mode == "P")):
            image = self._on_white(image.convert("LA") if mode == "La" else image, where)
        if image.mode not in ("L", "RGB"):
            image = image.convert("L" if mode in GREY_MODES else "RGB")
        return self._framed(image, where)

    def _on_white(self, image: Image.Image, where: str) -> Image.Image:
        grey, image = image.mode in GREY_MODES, image.convert("RGBA")
        if image.getchannel("A").getextrema()[0] != 255:
            self.notes.transparent.add(where)
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return image.convert("RGB").convert("L") if grey else image.convert("RGB")

    def _framed(self, image: Image.Image, where: str) -> Array:
        self.frame.check(*image.size, where)
        return np.asarray(self.frame.fit(image))

    @contextmanager
    def _opened(self, file: BinaryIO, where: str) -> Iterator[Image.Image]:
        """An image file, of which the header is read; whatever is wrong with it names the file."""
        try:
            with Image.open(file, formats=self._formats) as image:
                limit = Image.MAX_IMAGE_PIXELS
                if limit is not None and image.width * image.height > limit:
                    raise ValueError(f"{image.width}x{image.height} pixels are more than PIL.Image.MAX_IMAGE_PIXELS")
                yield image
        except Exception as error:  # damaged files make Pillow raise a dozen kinds
            raise ValueError(f"{where} is not a readable image: {str(error) or type(error).__name__}") from error


def _parts(values: Array) -> Iterator[Array]:
    """Views of a few rows each, so that what is computed of them takes little memory."""
    rows = max(1, (1 << 20) * len(values) // values.size) if values.ndim else 1
    for start in range(0, len(values), rows):
        yield values[start : start + rows]
