"""What of a pulled repository may be trusted: which files, how large, and that they are what their names say."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection
from pathlib import Path

from dim_data.format import CONFIG, MAX_BYTES, WEIGHTS, check_size

__all__ = ["check_snapshot", "missing_files"]


def missing_files(names: Collection[str]) -> list[str]:
    """The files that a generator needs and that are not among ``names``."""
    return [name for name in (CONFIG, WEIGHTS) if name not in names]


def check_snapshot(folder: Path) -> None:
    """Check each file of a snapshot in the Hub cache, ``.../models--user--repo/snapshots/commit``.

    A damaged file is removed, so that the next pull fetches it again.

    Raises:
        ValueError: A file leads out of the cache, is too large, or does not have the hash under which the cache
            keeps it (it keeps none where it cannot make links).
    """
    root = folder.resolve().parents[2]
    for name in MAX_BYTES:
        path = folder / name
        if not path.exists():
            continue
        content = path.resolve()
        if not content.is_relative_to(root) or not content.is_file():
            raise ValueError(f"{path} leads out of the Hub cache {root}: remove it and try again")
        check_size(str(path), name, content.stat().st_size)
        if path.is_symlink() and not _has_hash(content, Path(os.readlink(path)).name):
            content.unlink()
            path.unlink()
            raise ValueError(
                f"{path} does not have the hash the Hub gave: it was damaged on the way or on the disk. "
                f"It has been removed: try again"
            )


def _has_hash(path: Path, wanted: str) -> bool:
    """Whether ``wanted`` is the SHA-256 or the SHA-1 (git's or plain) of a file, or no hash at all."""
    if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", wanted) is None:
        return True
    git = hashlib.sha1(f"blob {path.stat().st_size}\0".encode())
    digests = [hashlib.sha256()] if len(wanted) == 64 else [git, hashlib.sha1()]
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            for digest in digests:
                digest.update(block)
    return wanted in {digest.hexdigest() for digest in digests}
