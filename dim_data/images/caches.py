"""The cache folder: image sets too large for memory, decoded once, each in a folder of its own.

It is ``$DIM_DATA_CACHE``, else ``dim_data`` in ``$XDG_CACHE_HOME`` or ``~/.cache``. ``dim-data cache`` lists it.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dim_data.images.locks import held

__all__ = ["ABOUT", "MAP_ABOVE", "CachedImages", "cache_folder", "cached_images", "map_above", "remove_cached"]

ABOUT = "about.json"
MAP_ABOVE = 1 << 30
"""Bytes of pixels that a set may have to be kept in memory, where ``DIM_DATA_MAP_ABOVE`` does not say."""


@dataclass(frozen=True)
class CachedImages:
    """A set in the cache.

    Attributes:
        folder: Its folder.
        name: What the set is called.
        source: Where it was read from.
        count: Images read so far.
        bytes: Bytes on disk.
        finished: Whether all were read. If not, reading the set again goes on there.
    """

    folder: Path
    name: str
    source: str
    count: int
    bytes: int
    finished: bool


def cache_folder() -> Path:
    """Where image sets too large for memory are kept; it need not be there."""
    if found := os.environ.get("DIM_DATA_CACHE"):
        return Path(found).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "dim_data"


def map_above() -> int:
    """Bytes of pixels from which on a set is mapped from a file: ``$DIM_DATA_MAP_ABOVE``, else 1 GiB.

    Raises:
        ValueError: The variable is no whole number.
    """
    text = os.environ.get("DIM_DATA_MAP_ABOVE") or str(MAP_ABOVE)
    if not text.isdecimal():
        raise ValueError(f"DIM_DATA_MAP_ABOVE must be a whole number of bytes, such as {MAP_ABOVE}, got {text!r}")
    return int(text)


def cached_images() -> list[CachedImages]:
    """The sets in the cache, by name. Folders of anything else are passed over."""
    found = []
    for path in cache_folder().glob(f"*/{ABOUT}"):
        try:
            about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            size = sum(file.stat().st_size for file in path.parent.iterdir())
            found.append(
                CachedImages(
                    path.parent,
                    str(about["name"]),
                    str(about["source"]),
                    about["done"],
                    size,
                    about["finished"] is True,
                )
            )
        except (OSError, ValueError, KeyError, TypeError):
            continue  # being removed, or not ours
    return sorted(found, key=lambda one: (one.name, str(one.folder)))


def remove_cached(folder: Path) -> None:
    """Remove one of :func:`cached_images`, unless it is being read just now.

    Who has it open already goes on with it, on Linux and macOS.

    Raises:
        FileExistsError: A process is reading the set into it.
        OSError: It cannot be removed.
    """
    try:
        with held(folder, wait=False, make=False):
            (folder / ABOUT).unlink(missing_ok=True)  # first: what is left of a removal cut short is then no set
            shutil.rmtree(folder)
    except BlockingIOError as error:
        raise FileExistsError(f"another process is reading images into {folder}: wait for it or stop it") from error
