"""Real images as tensors: one reader for everything that labelled images come in.

:func:`load_real` takes torchvision datasets, any map-style dataset, ``.npz`` files with MedMNIST's keys, image
folders, pairs of tensors, and the names of the known datasets, and checks what it read.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from dim_data.images.specs import KNOWN_SPECS, MAX_CLASSES, SIZE_RANGE, ImageSpec

__all__ = ["LabelledImages", "digest", "load_real"]

SPLITS = ("train", "val", "test")
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff"}


@dataclass(frozen=True)
class LabelledImages:
    """Images in memory with what is known about them.

    Attributes:
        images: uint8 (N, C, H, W), un-normalised.
        labels: int64 (N,), each in [0, spec.num_classes).
        spec: Their shape, class names and statistics.
        soft: A teacher's probabilities for each image, float (N, num_classes), or ``None``.
    """

    images: Tensor
    labels: Tensor
    spec: ImageSpec
    soft: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Tensor) -> LabelledImages:
        """The images at ``indices``, int64 (M,)."""
        soft = None if self.soft is None else self.soft[indices]
        return LabelledImages(self.images[indices], self.labels[indices], self.spec, soft)

    def to(self, device: torch.device) -> LabelledImages:
        """The same images on ``device``."""
        soft = None if self.soft is None else self.soft.to(device)
        return LabelledImages(self.images.to(device), self.labels.to(device), self.spec, soft)

    def split(self, fraction: float, seed: int = 0) -> tuple[LabelledImages, LabelledImages]:
        """Split off a random ``fraction`` of every class (at least one image, never all): (rest, held out)."""
        rng = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self), generator=rng)
        held: list[Tensor] = []
        for label in range(self.spec.num_classes):
            members = order[self.labels[order] == label]
            if len(members) > 1:
                held.append(members[: min(len(members) - 1, max(1, round(fraction * len(members))))])
        chosen = torch.cat([*held, order[:0]])
        mask = torch.ones(len(self), dtype=torch.bool)
        mask[chosen] = False
        return self.subset(mask.nonzero()[:, 0]), self.subset(chosen.sort().values)

    def fingerprint(self) -> str:
        """A short digest of images, labels and soft labels: whether a resumed run sees the data it began with."""
        return digest(tensor for tensor in (self.images, self.labels, self.soft) if tensor is not None)


def digest(tensors: Iterable[Tensor]) -> str:
    """A short digest of tensors' bytes, one after the other."""
    sha = hashlib.sha256()
    for tensor in tensors:
        sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()[:16]


def load_real(
    data: Any, spec: ImageSpec | None = None, *, split: str = "train", root: str | Path | None = None
) -> LabelledImages:
    """Read labelled images into memory.

    Args:
        data: One of

            - a :class:`LabelledImages`, returned as it is;
            - a known name (``"cifar10"``, ``"mnist"``, ``"fashion_mnist"``, ``"svhn"``), read from ``root``:
              ``<root>/<name>.npz`` if there, else torchvision's files;
            - a path to an ``.npz`` with ``{split}_images`` and ``{split}_labels`` (MedMNIST's keys), images
              uint8 (N, H, W) or (N, H, W, 3);
            - a path to a folder with one sub-folder of images per class;
            - a pair of tensors or arrays (images, labels): uint8, or floats in [0, 1], of shape (N, C, H, W),
              (N, H, W) or (N, H, W, C);
            - a map-style dataset whose items are (PIL image, array or tensor, int).
        spec: What the images are; taken from the data (and the known datasets) when left out.
        split: ``"train"``, ``"val"`` or ``"test"``, for names and ``.npz`` files.
        root: Where a known dataset's files are; required for names.

    Raises:
        FileNotFoundError: The file, folder or dataset is not there.
        ValueError: The images or labels cannot be used; the message says which and why.
        TypeError: ``data`` is none of the above.
    """
    if isinstance(data, LabelledImages):
        return data
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    names: tuple[str, ...] | None = None
    known: ImageSpec | None = None
    if isinstance(data, str | Path):
        name, path = str(data), Path(data)
        if name in KNOWN_SPECS:
            images, labels = _read_known(name, split, root)
            known = KNOWN_SPECS[name]
        elif path.is_dir():
            images, labels, names = _read_folder(path)
            name = path.resolve().name
        elif path.suffix == ".npz" and path.is_file():
            images, labels = _read_npz(path, split)
            known, name = KNOWN_SPECS.get(path.stem), path.stem
        else:
            raise FileNotFoundError(
                f"no data at {name!r}: give an image folder, an .npz file, a pair of tensors, a dataset, "
                f"or one of {sorted(KNOWN_SPECS)} with root="
            )
    elif isinstance(data, tuple | list) and len(data) == 2 and hasattr(data[0], "shape"):
        images, labels, name = data[0], data[1], "custom"
    elif hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        images, labels = _read_dataset(data)
        classes = getattr(data, "classes", None)
        names = tuple(map(str, classes)) if isinstance(classes, list | tuple) else None
        name = type(data).__name__.lower()
        known = KNOWN_SPECS.get({"fashionmnist": "fashion_mnist"}.get(name, name))
    else:
        raise TypeError(
            f"cannot read images from {type(data).__name__}: give a dataset of (image, int), an .npz file, "
            f"an image folder or a pair (images, labels)"
        )
    return _checked(images, labels, spec or known, names, name)


def _checked(
    images: Any, labels: Any, spec: ImageSpec | None, names: tuple[str, ...] | None, name: str
) -> LabelledImages:
    images, labels = _tensor(images, "images"), _tensor(labels, "labels")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]  # MedMNIST stores a column
    if images.ndim == 3:
        images = images[:, None]
    if images.ndim != 4:
        raise ValueError(f"images must be (N, C, H, W), (N, H, W) or (N, H, W, C), got shape {tuple(images.shape)}")
    if images.shape[1] not in (1, 3) and images.shape[3] in (1, 3):
        images = images.permute(0, 3, 1, 2)
    if len(images) == 0:
        raise ValueError("the data is empty: there is no image in it")
    if labels.shape != (len(images),):
        raise ValueError(f"{len(images)} images need as many labels, got labels of shape {tuple(labels.shape)}")
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(f"labels must be integers, got {labels.dtype}")
    channels, height, width = images.shape[1:]
    if channels not in (1, 3):
        raise ValueError(f"images must have 1 or 3 channels, got {channels}")
    if height != width or not SIZE_RANGE[0] <= height <= SIZE_RANGE[1]:
        raise ValueError(
            f"images must be square, {SIZE_RANGE[0]} to {SIZE_RANGE[1]} pixels, got {height}x{width}: resize them first"
        )
    if images.is_floating_point():
        if not bool(images.isfinite().all()):
            raise ValueError("the images hold NaN or infinite pixels")
        if images.min() < 0 or images.max() > 1:
            raise ValueError(
                f"float images must lie in [0, 1], got [{images.min():.3g}, {images.max():.3g}]: undo the normalisation"
            )
        images = (images * 255).round().to(torch.uint8)
    elif images.dtype != torch.uint8:
        raise ValueError(f"images must be uint8 or floats in [0, 1], got {images.dtype}")
    labels, images = labels.long(), images.contiguous()
    low, high = int(labels.min()), int(labels.max())
    wanted = spec.num_classes if spec else len(names) if names else high + 1
    if low < 0 or high >= min(wanted, MAX_CLASSES):
        raise ValueError(f"labels must lie in [0, {min(wanted, MAX_CLASSES)}), got {low} to {high}")
    if spec is not None and names is not None and high < len(names) and set(names) <= set(spec.classes):
        labels = torch.tensor([spec.classes.index(n) for n in names])[labels]  # folders come in alphabetical order
    if len(labels.unique()) < 2:
        raise ValueError("the data has a single class: a classifier needs at least two")
    if spec is None:
        pixels = images.double() / 255
        mean, std = pixels.mean((0, 2, 3)), pixels.std((0, 2, 3)).clamp(min=1e-3)
        spec = ImageSpec(
            name[:200] or "images",
            channels,
            height,
            names or tuple(str(i) for i in range(wanted)),
            tuple(round(float(m), 4) for m in mean),
            tuple(round(float(s), 4) for s in std),
        )
    elif (spec.channels, spec.size) != (channels, height):
        raise ValueError(
            f"{spec.name} images are {spec.channels}x{spec.size}x{spec.size}, got {channels}x{height}x{width}"
        )
    return LabelledImages(images, labels, spec)


def _tensor(values: Any, what: str) -> Tensor:
    try:
        return torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"the {what} are not numbers: {error}") from error


def _read_known(name: str, split: str, root: str | Path | None) -> tuple[Any, Any]:
    if root is None:
        raise FileNotFoundError(f"say where the files of {name!r} are: root= (--data-root, or DIM_DATA_ROOT)")
    packed = Path(root) / f"{name}.npz"
    if packed.is_file():
        return _read_npz(packed, split)
    if split == "val":
        raise ValueError(f"{name!r} has no split 'val', only 'train' and 'test'")
    from torchvision import datasets

    try:
        if name == "svhn":
            svhn = datasets.SVHN(str(root), split=split, download=False)
            return svhn.data, svhn.labels
        kind = {"cifar10": datasets.CIFAR10, "mnist": datasets.MNIST, "fashion_mnist": datasets.FashionMNIST}[name]
        dataset = kind(str(root), train=split == "train", download=False)
    except RuntimeError as error:
        raise FileNotFoundError(
            f"no {name} under {str(root)!r} (neither {packed.name} nor torchvision's files)"
        ) from error
    except ImportError as error:
        raise ImportError(f"{name} in torchvision's files needs scipy: pip install dim-data[svhn]") from error
    return dataset.data, dataset.targets


def _read_npz(path: Path, split: str) -> tuple[Any, Any]:
    keys = (f"{split}_images", f"{split}_labels")
    try:
        with zipfile.ZipFile(path) as archive:  # numpy takes what is no zip for a pickle
            found = sorted(name.removesuffix(".npy") for name in archive.namelist())
        missing = [key for key in keys if key not in found]
        if not missing:
            with np.load(path, allow_pickle=False) as file:
                return file[keys[0]], file[keys[1]]
    except Exception as error:  # a damaged file makes numpy raise a dozen kinds, down to tokenize.TokenError
        raise ValueError(f"{path} is not a readable .npz file: {error}") from error
    raise ValueError(f"{path} lacks {' and '.join(missing)}; it holds {', '.join(found) or 'nothing'}")


def _read_folder(path: Path) -> tuple[Any, Any, tuple[str, ...]]:
    folders = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    if len(folders) < 2:
        raise ValueError(f"{path} needs one sub-folder of images for each of two or more classes, found {len(folders)}")
    arrays: list[np.ndarray[Any, Any]] = []
    labels: list[int] = []
    for label, folder in enumerate(folders):
        files = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        if not files:
            raise ValueError(f"class folder {folder} holds no images")
        for file in files:
            try:
                with Image.open(file) as image:
                    arrays.append(np.asarray(image if image.mode == "L" else image.convert("RGB")))
            except (UnidentifiedImageError, OSError) as error:
                raise ValueError(f"{file} is not a readable image: {error}") from error
            labels.append(label)
    return _stack(arrays), labels, tuple(f.name for f in folders)


def _read_dataset(data: Any) -> tuple[Any, Any]:
    arrays: list[np.ndarray[Any, Any]] = []
    labels: list[int] = []
    for index in range(len(data)):
        item = data[index]
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise ValueError(f"a dataset's items must be (image, label) pairs, item {index} is {type(item).__name__}")
        image, label = item
        if isinstance(image, Image.Image):
            image = np.asarray(image if image.mode == "L" else image.convert("RGB"))
        arrays.append(np.asarray(image))
        value = np.asarray(label)  # MedMNIST's datasets give an array of one int
        if value.size != 1 or value.dtype.kind not in "iu":
            raise ValueError(f"the label of item {index} is not an int: {label!r}")
        labels.append(int(value.reshape(())))
    if not arrays:
        raise ValueError("the data is empty: there is no image in it")
    return _stack(arrays), labels


def _stack(arrays: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    shapes = {a.shape for a in arrays}
    if len(shapes) > 1:
        raise ValueError(f"images of mixed sizes: {', '.join(map(str, sorted(shapes)[:4]))}; resize them to one")
    return np.stack(arrays)
