"""Real images as tensors: one reader for everything that labelled images come in.

:func:`load_real` takes torchvision datasets, any other dataset, Hugging Face tables, ``.npz`` files with MedMNIST's
keys, image folders, pairs of tensors, and the names of the known datasets, and checks what it read.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dim_data.images.arrays import Arrays, read_arrays, read_known
from dim_data.images.caches import map_above
from dim_data.images.classes import match_classes, name_numbers, number_classes, say_assumed
from dim_data.images.datasets import dataset_pictures, is_dataset
from dim_data.images.defaults import torch_defaults
from dim_data.images.folders import folder_pictures
from dim_data.images.framing import Frame
from dim_data.images.keeping import Kept, OnRead
from dim_data.images.labelled import LabelledImages, digest, in_channels, measure_spec
from dim_data.images.levels import brightest_level, count_levels
from dim_data.images.npz import read_npz
from dim_data.images.pictures import Pictures
from dim_data.images.pixels import Pixels
from dim_data.images.reading import read_pictures
from dim_data.images.rows import ImageRows
from dim_data.images.slices import array_pictures, as_rows
from dim_data.images.specs import KNOWN_SPECS, MAX_CLASSES, SIZE_RANGE, ImageSpec
from dim_data.images.splits import SPLITS
from dim_data.images.tables import pick_split

__all__ = ["LabelledImages", "digest", "load_real"]


@torch_defaults()
def load_real(
    data: Any,
    spec: ImageSpec | None = None,
    *,
    split: str = "train",
    root: str | Path | None = None,
    size: int | None = None,
    columns: tuple[Any, Any] | None = None,
    sizes: Collection[int] | None = None,
    on_read: OnRead | None = None,
) -> LabelledImages:
    """Read labelled images: into memory, or where they are too many for it, into a file that is mapped.

    More than 1 GiB of pixels (``DIM_DATA_MAP_ABOVE`` bytes, if that variable is set) are decoded once into the cache
    folder, ``DIM_DATA_CACHE`` or ``~/.cache/dim_data``. A folder, an ``.npz`` or a table is found there again, as long
    as it has not changed; killed, the same call goes on where it was. Other datasets, which cannot be told from one
    another, are read anew each time, into a file that is gone when nobody uses it. ``dim-data cache`` lists what is
    kept and removes it. Large tensors that need no conversion stay where they are.

    Grey images become RGB where any is in colour. Whatever else is changed or skipped is said by one warning.

    Args:
        data: One of

            - a :class:`LabelledImages`, returned as it is, or with its labels in the order of ``spec``;
            - a known name (``"cifar10"``, ``"mnist"``, ``"fashion_mnist"``, ``"svhn"``), read from ``root``:
              ``<root>/<name>.npz`` if there, else torchvision's files;
            - a path to an ``.npz`` with ``{split}_images`` and ``{split}_labels`` (MedMNIST's keys);
            - a path to a folder with one sub-folder of image files per class, at any depth, or with ``train/``,
              ``test/`` and the like above them;
            - a pair of tensors or arrays (images, labels), images of shape (N, C, H, W), (N, H, W) or (N, H, W, C):
              uint8 or integers up to 255, uint16 over its whole range, booleans, floats in [0, 1];
            - a dataset whose items are (PIL image, array or tensor, int), map-style or torch's ``IterableDataset``
              with an end;
            - a table or stream of the Hugging Face library ``datasets``, or a dict of its splits.
        spec: What the images are; taken from the data (and the known datasets) when left out. Labels are matched to
            its classes by name, where the data names its own or is a known dataset; as numbers, where its classes are
            numbers; else in order. One warning says which were paired that are called differently.
        split: ``"train"``, ``"val"`` or ``"test"``, where the data has such parts.
        root: Where a known dataset's files are; required for names.
        size: Resize the shorter side to so many pixels, antialiased, and crop the centre; 28 to 128. Left out, images
            must be squares of one size.
        columns: The keys of the image and the label in a dataset's items, such as ``("img", "fine_label")``; found by
            type where they are left out.
        sizes: The sizes that may be, such as those that a decoder reaches; default: 28 to 128.
        on_read: Called now and then with how many pictures are read, and how many there are or ``None``, for progress
            bars.

    Raises:
        OSError: The cache folder cannot be written, or is full. What was read is kept.
        FileNotFoundError: The file, folder or dataset is not there.
        ValueError: The images or labels cannot be used; the message says which and why.
        TypeError: ``data`` is none of the above.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    if isinstance(data, LabelledImages):
        if size not in (None, data.spec.size):
            raise ValueError(
                f"these images were read at {data.spec.size} pixels: give size={size} to load_real() instead"
            )
        if sizes is not None:
            Frame(None, sizes).check(data.spec.size, data.spec.size, data.spec.name)
        if not len(data):
            raise ValueError("the data is empty: there is no image in it")
        return data.in_terms_of(data.spec if spec is None else spec)
    sizes = range(SIZE_RANGE[0], SIZE_RANGE[1] + 1) if sizes is None else sizes
    if spec is not None:
        Frame(None, sizes).check(spec.size, spec.size, spec.name)
    frame = Frame(size, (spec.size,), spec.name) if spec else Frame(size, sizes)
    pixels = Pixels(frame)
    source = _source(pick_split(data, split), split, root, columns, pixels, classes=1 if spec else 2)
    name, names, known = source.name, source.names, source.known
    images, labels, levels = _read(source, pixels, on_read)
    counted = count_levels(images) if levels is None and pixels.notes.deepest is not None else levels
    shades = None if counted is None else int(counted.any(0).sum())
    pixels.conclude(int(images[:].max()) if counted is None else brightest_level(counted), shades)
    if labels.dtype.kind == "U":
        labels, names = number_classes(labels)
    if labels.dtype.kind not in "iu":
        raise ValueError(f"labels must be integers, got {labels.dtype}")
    present = [int(label) for label in np.unique(labels)]
    told = names or (known.classes if known else name_numbers(present, spec) if spec else None)
    limit = min(len(told) if told else present[-1] + 1, MAX_CLASSES)
    if present[0] < 0 or present[-1] >= limit:
        raise ValueError(f"labels must lie in [0, {limit}), got {present[0]} to {present[-1]}")
    if spec is None and len(present) < 2:
        raise ValueError("the data has a single class: a classifier needs at least two")
    classes = told or tuple(map(str, range(limit)))
    wanted = spec or measure_spec(images, name, classes, known, present, levels)
    places = match_classes(classes, present, wanted)
    if spec is not None:
        unnamed = not names and known is None and split != "train"  # a spec for training images names them
        say_assumed(tuple(map(str, range(limit))) if unnamed else classes, present, places, spec)
    return LabelledImages(in_channels(images, wanted), torch.tensor(places)[labels.astype(np.int64)], wanted)


def _read(
    source: Pictures | Arrays, pixels: Pixels, on_read: OnRead | None
) -> tuple[Tensor | ImageRows, np.ndarray[Any, Any], Tensor | None]:
    """Images uint8 (N, C, S, S), their labels (N,), and how often each level occurs, where they are many."""
    if isinstance(source, Arrays) and source.bytes > map_above():
        shared = as_rows(source, pixels)
        if shared is not None:
            return *shared, count_levels(shared[0])
        source = array_pictures(source, pixels)
    if isinstance(source, Arrays):
        images, labels = read_arrays(source.images, source.labels, pixels)
        return torch.from_numpy(images), labels, None
    read = read_pictures(source, pixels, on_read)
    if isinstance(read, Kept):
        return read.images, read.labels, read.levels
    return torch.from_numpy(read[0]), read[1], None


def _source(
    data: Any, split: str, root: str | Path | None, columns: tuple[Any, Any] | None, pixels: Pixels, classes: int
) -> Pictures | Arrays:
    """What is to be read, by the kind of ``data``: a new kind of source is a line here."""
    if isinstance(data, str | Path):
        name, path = str(data), Path(data).expanduser()
        if name in KNOWN_SPECS:
            return Arrays(name, *read_known(name, split, root), known=KNOWN_SPECS[name])
        if path.is_dir():
            return folder_pictures(path, split, pixels, classes)
        if path.suffix == ".npz" and path.is_file():
            return Arrays(path.stem, *read_npz(path, split), known=KNOWN_SPECS.get(path.stem))
        raise FileNotFoundError(
            f"no data at {name!r}: give an image folder, an .npz file, a pair of tensors, a dataset, "
            f"or one of {sorted(KNOWN_SPECS)} with root="
        )
    if isinstance(data, tuple | list) and len(data) == 2 and hasattr(data[0], "shape"):
        return Arrays("custom", data[0], data[1])
    if is_dataset(data):
        return dataset_pictures(data, columns, pixels)
    raise TypeError(
        f"cannot read images from {type(data).__name__}: give a dataset of (image, int), an .npz file, "
        f"an image folder or a pair (images, labels)"
    )
