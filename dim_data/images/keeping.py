"""Keeping a source's pictures in the cache, from which they are mapped.

A source that can be told from every other is found again, and a reading that was cut short goes on there. What cannot
be told is read anew each time, into a folder that is gone afterwards.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dim_data.images.caches import cache_folder
from dim_data.images.levels import count_levels
from dim_data.images.locks import held
from dim_data.images.pictures import Pictures, decoded
from dim_data.images.pixels import Pixels
from dim_data.images.rows import ImageRows
from dim_data.images.stores import PictureStore

__all__ = ["Batches", "Kept", "OnRead", "find_kept", "keep", "keep_unnamed", "place_of"]

Array = np.ndarray[Any, Any]
Batches = Iterable[tuple[Array, list[int | str]]]
OnRead = Callable[[int, int | None], object]
"""Called with how many pictures are read, and how many there are, if that is known."""


@dataclass(frozen=True)
class Kept:
    """A source's pictures, in a file.

    Attributes:
        images: uint8 (N, C, S, S), mapped.
        labels: Numbers or names, (N,).
        levels: int64 (C, 256), as :func:`~dim_data.images.levels.count_levels` gives them.
    """

    images: ImageRows
    labels: Array
    levels: Tensor


def place_of(identity: Mapping[str, Any]) -> Path:
    """The folder in the cache of the source with this identity; it need not be there."""
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return cache_folder() / key[:24]


def find_kept(identity: Mapping[str, Any], pictures: Pictures, pixels: Pixels) -> Kept | None:
    """A source that was read to its end before; its notes are brought back to ``pixels``."""
    with ExitStack() as stack:
        try:
            stack.enter_context(held(folder := place_of(identity), make=False))
        except (FileNotFoundError, NotADirectoryError):
            return None
        store = PictureStore(folder, pictures.name, _said(identity))
        return _kept(store, pixels) if store.finished else None


def keep(
    identity: Mapping[str, Any], pictures: Pictures, pixels: Pixels, channels: int | None, on_read: OnRead
) -> Kept:
    """Read a source into the cache, or what is missing there.

    Args:
        identity: What tells it from every other.
        pictures: The source.
        pixels: What decodes its pictures.
        channels: The least that all have.
        on_read: See :data:`OnRead`.

    Raises:
        OSError: The cache cannot be written; what was read is kept, and the same call goes on.
        ValueError: The source has changed meanwhile.
    """
    folder = place_of(identity)
    with _writable(pictures.name):
        folder.mkdir(parents=True, exist_ok=True)
    with held(folder):
        store = PictureStore(folder, pictures.name, _said(identity))
        if not store.finished:
            label = None
            if store.done:
                pixels.notes.load_state_dict(store.facts["notes"])
                channels, label = store.shape[0], store.labels()[-1].item()
            _fill(store, pictures, pixels, on_read, decoded(pictures, channels, store.done, label))
            if pictures.identity is not None and dict(pictures.identity()) != dict(identity):
                store.remove()
                raise ValueError(f"{store.source} changed while it was read: read it again")
            _finish(store, pixels)
        return _kept(store, pixels)


def keep_unnamed(pictures: Pictures, pixels: Pixels, on_read: OnRead, batches: Batches) -> Kept:
    """Read batches into a file that nobody finds again; its space is free once nobody has the images any more.

    Raises:
        OSError: The cache cannot be written.
    """
    with _writable(pictures.name):
        cache_folder().mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="unnamed-", dir=cache_folder()))
    with held(folder):
        store = PictureStore(folder, pictures.name, "a dataset, for the process that reads it")
        try:
            _fill(store, pictures, pixels, on_read, batches, named=False)
            _finish(store, pixels)
            return _kept(store, pixels)
        finally:
            store.remove()  # what is mapped stays


def _said(identity: Mapping[str, Any]) -> str:
    return str(identity.get("path", "a table"))


def _fill(
    store: PictureStore, pictures: Pictures, pixels: Pixels, on_read: OnRead, batches: Batches, named: bool = True
) -> None:
    count, began = pictures.count, False
    if store.done:
        on_read(store.done, count)
    try:
        for images, labels in batches:
            with _writable(pictures.name, store if named else None, count):
                if not began:
                    _check_space(store, images[0].size, count)
                    store.begin(images.shape[1:])
                    began = True
                store.add(images, labels, {"notes": pixels.notes.state_dict()})
            on_read(store.done, count)
    finally:
        store.close()


def _finish(store: PictureStore, pixels: Pixels) -> None:
    levels = count_levels(store.images()).tolist()
    with _writable(store.name, store, store.done):
        store.note({"notes": pixels.notes.state_dict(), "levels": levels}, finished=True)


def _kept(store: PictureStore, pixels: Pixels) -> Kept:
    images = store.images()
    pixels.frame.check(images.shape[3], images.shape[2], store.name)
    pixels.notes.load_state_dict(store.facts["notes"])
    return Kept(images, store.labels(), torch.tensor(store.facts["levels"]))


def _check_space(store: PictureStore, row: int, count: int | None) -> None:
    """Find out now what writing would meet after hours."""
    needed, free = row * ((count or 0) - store.done), shutil.disk_usage(store.folder).free
    if needed > free:
        raise OSError(f"{needed / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free")


@contextmanager
def _writable(name: str, store: PictureStore | None = None, count: int | None = None) -> Iterator[None]:
    """Say of a write that fails what is kept, and what to do."""
    try:
        yield
    except OSError as error:
        done = f"; {store.done} of {count} images are kept there" if store is not None and store.done else ""
        raise OSError(
            f"{name} is too large for memory, and cannot be kept in {cache_folder()}: {error}{done}. Make room and run "
            f"the same call again, or let DIM_DATA_CACHE name another folder"
        ) from error
