"""What Pillow calls the kinds of image files and of their pixels, and which have a meaning here."""

from __future__ import annotations

from PIL import ExifTags, Image

__all__ = ["COLOUR_MODES", "GREY_MODES", "brightest_of", "check_mode", "image_formats", "is_deep", "orientation"]

GREY_MODES = {"1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N"}
COLOUR_MODES = {"P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"}
DEEP_FORMATS = {"PNG", "PPM", "JPEG2000"}
"""Formats whose integers of mode ``I`` are sixteen bits wide."""
NO_PICTURES = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
"""Formats that Pillow tells apart but does not decode, or only by another program."""


def image_formats() -> dict[str, str]:
    """The suffixes of the image files that Pillow reads here, in lower case, and their formats."""
    Image.init()
    formats = set(Image.OPEN) - NO_PICTURES
    return {suffix: name for suffix, name in Image.registered_extensions().items() if name in formats}


def check_mode(mode: str, kind: str | None, where: str) -> None:
    """Raise ``ValueError`` unless pixels of ``mode``, in a file of the format ``kind``, are levels or colours."""
    if mode not in GREY_MODES | COLOUR_MODES or (mode == "I" and kind not in DEEP_FORMATS):
        raise ValueError(
            f"{where}: pixels of Pillow's mode {mode!r}{f' in {kind}' if kind else ''} have no one meaning as grey "
            f"levels or colours: convert it to eight bits a channel"
        )


def orientation(image: Image.Image) -> int:
    """How a photo was held, as EXIF numbers it: 1 is upright."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # notes that cannot be read say nothing about how to turn the picture
        return 1


def is_deep(image: Image.Image) -> bool:
    """Whether a file has 16 bits a channel that Pillow cuts to eight as it decodes them."""
    tiles = getattr(image, "tile", [])
    return image.mode in ("RGB", "RGBA") and any(";16" in str(tile[3]) for tile in tiles)


def brightest_of(image: Image.Image) -> int:
    """The largest value of all channels but transparency."""
    return max(int(high) for _, high in image.getextrema()[:3])  # type: ignore[misc,arg-type]
