"""Folders with one sub-folder of image files for each class, in torchvision's order."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from dim_data.images.pictures import Picture, Pictures
from dim_data.images.pixels import Pixels, image_formats
from dim_data.images.splits import SPLITS, is_split, which_split

__all__ = ["folder_pictures"]

SYSTEM_NAMES = {"__macosx", "thumbs.db", "desktop.ini"}
"""What operating systems leave behind; hidden files are not named here."""


def folder_pictures(path: Path, split: str, pixels: Pixels, classes: int = 2) -> Pictures:
    """The image files of a folder of class folders, recursively; every header is checked before any is decoded.

    Classes come in the order of their names, files in that of their paths, as in torchvision's ``ImageFolder``.
    Hidden files and folders do not count. A folder that holds nothing but ``train/``, ``test/`` and the like is
    read there; with others beside them it is refused.

    Args:
        path: The folder.
        split: Which of its splits, if it has any.
        pixels: How pictures are decoded.
        classes: The class folders that it must have at least.

    Raises:
        OSError: A folder cannot be listed.
        ValueError: It has no class folders, an empty one, one that is a split and no class, or a file that cannot be
            used.
    """
    name = path.resolve().name
    folders = _class_folders(path)
    if folders and all(is_split(folder.name) for folder in folders):
        path = path / which_split([folder.name for folder in folders], split, str(path))
        folders = _class_folders(path)
    _check_splits(path, folders, split)
    if len(folders) < classes:
        images = sum(file.suffix.lower() in image_formats() for file in path.iterdir())
        raise ValueError(
            f"{path} needs one sub-folder of images for each of {'two or more' if classes > 1 else 'its'} classes, "
            f"found {len(folders)}{f', and {images} images beside them' if images else ''}"
        )
    suffixes = image_formats().keys()
    files: list[tuple[str, int]] = []
    for label, folder in enumerate(folders):
        members = []
        for file in _files(folder):
            if _is_image(file, suffixes):
                members.append(file)
            elif file.suffix.lower() in suffixes or not _is_systems(file.name):
                pixels.skipped.add(str(file.relative_to(path)))
        if not members:
            raise ValueError(f"class folder {folder} holds no images")
        files += [(str(file), label) for file in members]
    for beside in sorted(path.iterdir(), key=lambda entry: entry.name):
        if not beside.is_dir() and not _is_systems(beside.name):
            pixels.skipped.add(beside.name)

    def check() -> int:
        grey = [pixels.peek(Path(file), file) for file, _ in files]  # of each, whatever those before it are
        return 1 if all(grey) else 3

    def stream(start: int) -> Iterator[Picture]:
        return ((partial(_decode, file, pixels), label) for file, label in islice(files, start, None))

    return Pictures(
        name,
        stream,
        len(files),
        check,
        partial(_identity, path, files, pixels),
        parallel=True,
        names=tuple(folder.name for folder in folders),
    )


def _decode(file: str, pixels: Pixels) -> np.ndarray[Any, Any]:
    with open(file, "rb") as opened:
        return pixels.file(opened, file)


def _identity(path: Path, files: list[tuple[str, int]], pixels: Pixels) -> dict[str, Any]:
    """A digest of where each file is, how long, how old, and of which class."""
    sha = hashlib.sha256()
    for file, label in files:
        stat = os.stat(file)
        sha.update(f"{file}\0{label}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return {"path": str(path.resolve()), "files": sha.hexdigest(), **pixels.identity}


def _class_folders(path: Path) -> list[Path]:
    visible = (p for p in path.iterdir() if p.is_dir() and not _is_systems(p.name))
    return sorted(visible, key=lambda folder: folder.name)


def _check_splits(path: Path, folders: list[Path], split: str) -> None:
    """Refuse splits among the class folders: each has class folders of its own, and would be one class.

    Raises:
        ValueError: There are some.
    """
    splits = [folder.name for folder in folders if is_split(folder.name) and _has_but_folders(folder)]
    if splits:
        beside = ", ".join(repr(folder.name) for folder in folders if folder.name not in splits)
        wanted = next((name for name in splits if name.lower() in SPLITS[split]), splits[0])
        raise ValueError(
            f"{path} holds {', '.join(map(repr, splits))} with folders of images in them"
            f"{f', and beside that {beside}' if beside else ''}: as classes they would mix splits. Leave nothing but "
            f"splits there, or give {path / wanted}; a class of that name needs images right in its folder"
        )


def _has_but_folders(folder: Path) -> bool:
    """Whether images lie in its sub-folders, and none beside them."""
    suffixes = image_formats().keys()
    images = [file for file in _files(folder) if _is_image(file, suffixes)]
    return bool(images) and all(image.parent != folder for image in images)


def _is_image(file: Path, suffixes: Collection[str]) -> bool:
    return not file.name.startswith(".") and file.suffix.lower() in suffixes


def _files(folder: Path) -> Iterator[Path]:
    """All files below a folder, but for those in hidden folders, as ``ImageFolder`` orders them."""
    walk: list[tuple[str, list[str]]] = []
    for place, folders, names in os.walk(folder, followlinks=True, onerror=_raise):
        above = Path(place).resolve()
        folders[:] = [
            name
            for name in folders
            if not _is_systems(name)
            and (resolved := Path(place, name).resolve()) != above  # a link to where it lies has no end
            and resolved not in above.parents
        ]
        walk.append((place, names))
    for place, names in sorted(walk):
        yield from (Path(place, name) for name in sorted(names))


def _is_systems(name: str) -> bool:
    """Whether systems and editors keep it for themselves, so that nobody looks for it among the images."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def _raise(error: OSError) -> NoReturn:
    raise error
