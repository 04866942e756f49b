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

from dim_data.images.modes import image_formats
from dim_data.images.pictures import Picture, Pictures
from dim_data.images.pixels import Pixels
from dim_data.images.splits import is_split, split_of, which_split
from dim_data.images.warn import warn_caller

__all__ = ["folder_pictures"]

SYSTEM_NAMES = {"__macosx", "thumbs.db", "desktop.ini", "@eadir", "#recycle", "$recycle.bin", "lost+found"}
SYSTEM_NAMES |= {"system volume information"}
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
    inside = {folder.name: _parts(folder) for folder in folders}
    splits = [name for name, parts in inside.items() if is_split(name) and parts]
    if splits:
        beside = ", ".join(repr(folder.name) for folder in folders if folder.name not in splits)
        wanted = next((name for name in splits if split_of(name) == split), splits[0])
        raise ValueError(
            f"{path} holds {', '.join(map(repr, splits))} with folders of images in them"
            f"{f', and beside that {beside}' if beside else ''}: as classes they would mix splits. Leave nothing but "
            f"splits there, or give {path / wanted}; a class of that name needs images right in its folder"
        )
    for name, parts in inside.items():
        if among := [part for part in parts if is_split(part)]:
            raise ValueError(
                f"class folder {path / name} holds {', '.join(map(repr, among))}: as one class they would mix splits. "
                f"Let train/ and the like lie above the class folders"
            )
        if among := [part for part in parts if part in inside]:
            raise ValueError(
                f"{path / name} holds {', '.join(map(repr, among[:5]))}, which lie beside it, too: as classes they "
                f"would have their images twice. Leave one of the two"
            )
    common = set.intersection(*map(set, inside.values())) if inside else set()
    if len(inside) > 1 and len(common) > 1:
        warn_caller(
            f"each class of {path} holds {', '.join(map(repr, sorted(common)[:5]))}: they were read as parts of the "
            f"classes {', '.join(map(repr, list(inside)[:5]))}. If they are the classes, give a folder one level down"
        )


def _parts(folder: Path) -> list[str]:
    """Sub-folders with images in them, where none lie beside them."""
    suffixes = image_formats().keys()
    if any(_is_image(file, suffixes) for file in folder.iterdir() if not file.is_dir()):
        return []
    return [part.name for part in _class_folders(folder) if any(_is_image(file, suffixes) for file in _files(part))]


def _is_image(file: Path, suffixes: Collection[str]) -> bool:
    return not file.name.startswith(".") and file.suffix.lower() in suffixes


def _files(folder: Path) -> Iterator[Path]:
    """All files below a folder, but for those in hidden folders, as ``ImageFolder`` orders them."""
    walk: list[tuple[str, list[str]]] = []
    before_links: dict[str, frozenset[Path]] = {str(folder): frozenset()}  # what lies above the links on the way
    for place, folders, names in os.walk(folder, followlinks=True, onerror=_raise):
        here, before = Path(place).resolve(), before_links.pop(place)
        above = before | {here, *here.parents}
        visible, folders[:] = [name for name in folders if not _is_systems(name)], []
        for name in visible:
            inner = os.path.join(place, name)
            if Path(inner).resolve() not in above:  # else it would lead here again, without end
                folders.append(name)
                before_links[inner] = above if os.path.islink(inner) else before
        walk.append((place, names))
    for place, names in sorted(walk):
        yield from (Path(place, name) for name in sorted(names))


def _is_systems(name: str) -> bool:
    """Whether systems and editors keep it for themselves, so that nobody looks for it among the images."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def _raise(error: OSError) -> NoReturn:
    raise error
