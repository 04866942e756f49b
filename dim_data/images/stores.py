"""A file that decoded pictures are added to, so that a kill or a full disk loses little and the next call goes on."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from dim_data.images.caches import ABOUT
from dim_data.images.rows import ImageRows, map_images

__all__ = ["PictureStore"]

Array = np.ndarray[Any, Any]

LABELS = "labels.jsonl"
VERSION = 1
SECONDS = 5.0
"""Between two notes of how much is done: a kill loses as much."""
COPIED = 256


class PictureStore:
    """Pictures on disk, uint8 (C, S, S) of one shape, with a label each, in a folder of their own.

    ``about.json`` says how many of those in the files count: it is written last.

    Args:
        folder: There already, empty or with a store.
        name: What the set is called.
        source: Where it comes from, for people.

    Attributes:
        done: Pictures that are in it.
        finished: Whether these are all.
        facts: What was noted with them, in plain values.

    Raises:
        OSError: It cannot be read or written.
    """

    def __init__(self, folder: Path, name: str, source: str) -> None:
        self.folder, self.name, self.source = folder, name, source
        self.done, self.shape, self.finished = 0, (0, 0, 0), False
        self.facts: dict[str, Any] = {}
        self._images: BinaryIO | None = None
        self._labels: BinaryIO | None = None
        self._noted_at = time.monotonic()
        self._load()

    def _file(self, channels: int) -> Path:
        return self.folder / f"images-{channels}.bin"

    @property
    def row(self) -> int:
        """Bytes of a picture."""
        return int(np.prod(self.shape))

    def _load(self) -> None:
        try:
            about = json.loads((self.folder / ABOUT).read_text(encoding="utf-8"))
            shape, done = tuple(map(int, about["shape"])), int(about["done"])
            long_enough = self._file(shape[0]).stat().st_size >= done * int(np.prod(shape))
            if about["version"] == VERSION and long_enough and len(self._lines()) >= done:
                self.shape, self.done, self.finished = shape, done, about["finished"] is True  # type: ignore[assignment]
                self.facts = about["facts"]
        except (FileNotFoundError, ValueError, KeyError, TypeError, IndexError):
            pass  # nothing there, or nothing to go on with: begun anew

    def _lines(self) -> list[str]:
        with (self.folder / LABELS).open(encoding="utf-8") as file:
            return file.readlines()

    # Adding -------------------------------------------------------------------------------------------

    def begin(self, shape: tuple[int, int, int]) -> None:
        """Go on after the pictures that are there already, which are of this shape (C, S, S) but for their channels."""
        if not self.done:
            self.shape = shape
        if shape[0] > self.shape[0]:
            self._widen()
        self._open()
        self.note(self.facts)

    def _open(self) -> None:
        self._images = _opened(self._file(self.shape[0]), self.done * self.row)
        if self._labels is None:
            lines = self._lines()[: self.done] if self.done else []
            self._labels = _opened(self.folder / LABELS, sum(len(line.encode()) for line in lines))

    def add(self, pictures: Array, labels: list[int | str], facts: Mapping[str, Any]) -> None:
        """Add pictures uint8 (B, C, S, S), in the store's channels or in three.

        Args:
            pictures: From the first in colour on, all pictures are stored in three channels.
            labels: One each.
            facts: What is known by now; noted with the pictures.
        """
        if pictures.shape[1] > self.shape[0]:
            self.note(facts)
            self._widen()
            self._open()
        if pictures.shape[1] < self.shape[0]:
            pictures = np.repeat(pictures, self.shape[0], axis=1)
        images, names = self._images, self._labels
        if images is None or names is None:
            raise ValueError("begin() comes before add()")
        images.write(np.ascontiguousarray(pictures).data)
        names.write("".join(json.dumps(label) + "\n" for label in labels).encode())
        self.done += len(labels)
        if time.monotonic() - self._noted_at > SECONDS:
            self.note(facts)

    def note(self, facts: Mapping[str, Any], finished: bool = False) -> None:
        """Write down that all pictures so far count."""
        for file in (self._images, self._labels):
            if file is not None:
                file.flush()
                os.fsync(file.fileno())
        self.facts, self.finished = dict(facts), finished
        about = {"version": VERSION, "name": self.name, "source": self.source, "shape": self.shape, "done": self.done}
        text = json.dumps({**about, "finished": finished, "facts": self.facts}, indent=2) + "\n"
        temporary = self.folder / f".{ABOUT}.tmp"
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, self.folder / ABOUT)
        self._noted_at = time.monotonic()

    def close(self) -> None:
        """Close the files; what was added since the last note may be lost."""
        for file in (self._images, self._labels):
            if file is not None:
                with contextlib.suppress(OSError):  # a full disk: said already
                    file.close()
        self._images = self._labels = None

    def _widen(self) -> None:
        """Store the grey pictures that are there as RGB ones; until that is noted, the grey ones count."""
        if self._images is not None:
            self._images.close()
        grey, shape = self._file(self.shape[0]), self.shape
        self.shape = (3, *shape[1:])
        if not self.done:
            return
        with self._file(3).open("wb") as wide:
            for part in map_images(grey, (self.done, *shape)).split(COPIED):
                wide.write(np.repeat(part.numpy(), 3, axis=1).data)
            wide.flush()
            os.fsync(wide.fileno())
        self._images = None
        self.note(self.facts)
        grey.unlink(missing_ok=True)

    # Reading ------------------------------------------------------------------------------------------

    def images(self) -> ImageRows:
        """The pictures, mapped: uint8 (N, C, S, S)."""
        return map_images(self._file(self.shape[0]), (self.done, *self.shape))

    def labels(self) -> Array:
        """Their labels: numbers or names, (N,)."""
        return np.asarray(json.loads(f"[{','.join(self._lines()[: self.done])}]"))

    def remove(self) -> None:
        """Remove the folder. What is mapped stays readable, on Linux and macOS."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _opened(path: Path, size: int) -> BinaryIO:
    """A file to add to, cut to ``size`` bytes."""
    file = path.open("r+b" if path.exists() else "w+b", buffering=1 << 20)
    file.truncate(size)
    file.seek(size)
    return file
