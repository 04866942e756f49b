"""``.npz`` files with MedMNIST's keys, and arrays in them that are too large for memory."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dim_data.images.caches import map_above

__all__ = ["NpzArray", "read_npz"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class NpzArray:
    """An array in an ``.npz`` file, of which rows are read, one after the other.

    Attributes:
        path: The file.
        key: The array's name in it.
        shape: The array's.
        dtype: The array's.
    """

    path: Path
    key: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def rows(self, start: int, count: int) -> Iterator[Array]:
        """Arrays of ``count`` rows each, from row ``start`` on; the last may be shorter.

        Raises:
            ValueError: The file is damaged.
        """
        width = math.prod(self.shape[1:]) * self.dtype.itemsize
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(f"{self.key}.npy") as file:
                _header(file)
                file.seek(start * width, 1)
                for place in range(start, self.shape[0], count):
                    content = file.read(width * min(count, self.shape[0] - place))
                    yield np.frombuffer(content, self.dtype).reshape(-1, *self.shape[1:])
        except Exception as error:  # as many kinds as there are of damage
            raise ValueError(f"{self.path} is not a readable .npz file: {error}") from error


def _header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    if np.lib.format.read_magic(file) == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)


def read_npz(path: Path, split: str) -> tuple[Any, Any]:
    """The arrays ``{split}_images`` and ``{split}_labels`` of a file; an :class:`NpzArray` of images too many to read.

    Raises:
        ValueError: It is damaged, lacks one of them, or holds objects.
    """
    keys = (f"{split}_images", f"{split}_labels")
    try:
        with zipfile.ZipFile(path) as archive:  # numpy takes what is no zip for a pickle
            found = sorted(name.removesuffix(".npy") for name in archive.namelist())
        missing = [key for key in keys if key not in found]
        if not missing:
            with np.load(path, allow_pickle=False) as file:
                large = _large(path, keys[0])
                return file[keys[0]] if large is None else large, file[keys[1]]
    except Exception as error:  # a damaged file makes numpy raise a dozen kinds, down to tokenize.TokenError
        raise ValueError(f"{path} is not a readable .npz file: {error}") from error
    raise ValueError(f"{path} lacks {' and '.join(missing)}; it holds {', '.join(found) or 'nothing'}")


def _large(path: Path, key: str) -> NpzArray | None:
    """An array that is too large for memory, by its header; one that lies column by column must be read whole."""
    with zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as file:
        shape, by_columns, dtype = _header(file)
    if math.prod(shape) <= map_above() or by_columns or dtype.hasobject:
        return None
    return NpzArray(path, key, shape, dtype)
