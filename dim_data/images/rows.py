"""Images that are too many to copy: where they lie, and which of them count.

What is done with images, a few at a time, is done with these as with a tensor: ``images[rows]``, ``images.split(256)``.
What needs them all at once is not there.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["ImageRows", "map_images"]

Array = np.ndarray[Any, Any]

RESIDENT = 256 << 20
"""Bytes of a mapped file that stay in the process's memory at most. The system's cache of the file is not touched."""
AROUND = 64 << 10
"""Bytes that a page fault maps around those that are read, at least."""
ASKED = 4 << 20
"""Bytes read between two looks at how many are resident, where the system says."""
STATM = Path("/proc/self/statm")


class _Place:
    """Where images lie: an array in memory, or mapped from a file, whose pages are let go of again."""

    def __init__(self, array: Array, mapping: mmap.mmap | None = None) -> None:
        self.array = array
        self.mapping = mapping if hasattr(mmap, "MADV_DONTNEED") else None
        self._touched, self._asked, self._before = 0, 0, _resident()

    def read(self, rows: Array) -> Tensor:
        """A copy of these images: uint8 (B, C, H, W)."""
        found = torch.from_numpy(np.take(self.array, rows, axis=0))
        if self.mapping is not None:
            self._touched += found.numel() + AROUND * len(rows)
            if self._touched - self._asked > min(ASKED, RESIDENT):
                self._asked, now = self._touched, _resident()
                if (now - self._before if now else self._touched) > RESIDENT:
                    self.mapping.madvise(mmap.MADV_DONTNEED)  # clean pages: they are found again in the file
                    self._touched, self._asked, self._before = 0, 0, _resident()
        return found


def _resident() -> int:
    """Bytes of files that the process has in its memory, as Linux says; 0 elsewhere."""
    try:
        return int(STATM.read_text().split()[2]) * mmap.PAGESIZE
    except (OSError, IndexError):
        return 0


class ImageRows:
    """Images uint8 (N, C, H, W), as rows of an array that is never copied: in memory, or mapped from a file.

    An index gives a tensor of the images that it names; :meth:`at` another choice of rows, and reads nothing.

    Args:
        array: uint8 (M, C, H, W).
        rows: int64 (N,), which of them count, in this order; default: all.
        channels: 3 shows grey images as RGB; 1 those without colour as grey. Default: as they are.
    """

    dtype = torch.uint8
    device = torch.device("cpu")
    ndim = 4

    def __init__(self, array: Array, rows: Tensor | None = None, channels: int | None = None) -> None:
        self._place, self._rows = _Place(array), rows
        self._channels = channels or array.shape[1]

    @property
    def shape(self) -> torch.Size:
        """(N, C, H, W)."""
        return torch.Size((len(self), self._channels, *self._place.array.shape[2:]))

    def __len__(self) -> int:
        return len(self._place.array) if self._rows is None else len(self._rows)

    def __getitem__(self, index: Tensor | slice | int | Sequence[int] | Array) -> Tensor:
        """The images at an index, slice, mask or several indices: a copy, uint8 (B, C, H, W), or (C, H, W) of one.

        Raises:
            IndexError: There is no such image, or a mask is of another length.
        """
        if not isinstance(index, slice):
            index = torch.as_tensor(index, device="cpu")
            if index.ndim == 0:
                return self[index[None]][0]
        rows = self._chosen(index)
        images = self._place.read(rows.numpy())
        if images.shape[1] < self._channels:
            return images.expand(-1, self._channels, -1, -1).contiguous()
        return images[:, : self._channels].contiguous()

    def __iter__(self) -> Iterator[Tensor]:
        for part in self.split(256):
            yield from part

    def split(self, size: int) -> Iterator[Tensor]:
        """All images in their order, ``size`` at a time."""
        for start in range(0, len(self), size):
            yield self[start : start + size]

    def at(self, indices: Tensor) -> ImageRows:
        """Those at ``indices``, int64 (B,): no image is read."""
        return self._with(self._chosen(indices), self._channels)

    def in_channels(self, channels: int) -> ImageRows:
        """All of them in 1 or 3 channels: no image is read."""
        return self._with(self._rows, channels)

    def to(self, device: torch.device | str) -> ImageRows:
        """The same images, which stay where they are: batches of them are brought to a device."""
        return self

    def _with(self, rows: Tensor | None, channels: int) -> ImageRows:
        other = ImageRows(self._place.array, rows, channels)
        other._place = self._place
        return other

    def _chosen(self, index: Tensor | slice) -> Tensor:
        """Rows of the array: int64, on the CPU."""
        if isinstance(index, slice):
            if self._rows is not None:
                return self._rows[index]
            return torch.arange(*index.indices(len(self)))
        index = index.cpu()
        if index.dtype == torch.bool:
            if index.shape != (len(self),):
                raise IndexError(f"a mask of {len(self)} images has as many values, got shape {tuple(index.shape)}")
            index = index.nonzero()[:, 0]
        if len(index) and not (int(index.min()) >= -len(self) and int(index.max()) < len(self)):
            raise IndexError(f"indices must lie in [{-len(self)}, {len(self)}), got {index.min()} to {index.max()}")
        return index if self._rows is None else self._rows[index]

    def __repr__(self) -> str:
        where = "in memory" if self._place.mapping is None else "mapped from a file"
        return f"ImageRows({tuple(self.shape)}, {where})"


def map_images(path: Path, shape: tuple[int, ...]) -> ImageRows:
    """The images that a file holds as bare bytes, one after the other, uint8 of ``shape`` (N, C, H, W).

    The file is never held whole: pages come as they are asked for, and go. It must not be cut while it is in use.

    Raises:
        OSError: It cannot be read.
        ValueError: It is shorter than that.
    """
    size = int(np.prod(shape))
    with path.open("rb") as file:
        mapping = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
    images = ImageRows(np.frombuffer(mapping, np.uint8).reshape(shape))
    images._place = _Place(images._place.array, mapping)
    return images
