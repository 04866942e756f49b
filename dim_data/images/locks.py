"""Folders that one process at a time may write to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: two processes at work in one folder are not kept apart there
    fcntl = None  # type: ignore[assignment]

__all__ = ["held"]


@contextmanager
def held(folder: Path, wait: bool = True, make: bool = True) -> Iterator[None]:
    """Hold a folder against other processes that do so.

    The lock is the operating system's, on the folder itself: no file is left behind, and it goes with the process,
    however that ends. Network shares without locks hold nobody off.

    Args:
        folder: The folder.
        wait: Whether to wait for who holds it.
        make: Whether to make it where there is none, or where who held it has removed it.

    Raises:
        BlockingIOError: Another process holds it, and ``wait`` is false.
        FileNotFoundError: It is not there, and ``make`` is false.
        OSError: It cannot be made or opened.
    """
    if fcntl is None:
        if make:
            folder.mkdir(parents=True, exist_ok=True)
        yield
        return
    handle = _locked(folder, wait, make)
    try:
        yield
    finally:
        os.close(handle)


def _locked(folder: Path, wait: bool, make: bool) -> int:
    while True:
        if make:
            folder.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            if make:  # removed just now
                continue
            raise
        try:
            _lock(handle, wait)
            if _is(handle, folder):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # it was removed while this waited


def _lock(handle: int, wait: bool) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise
    except OSError:  # a network share without locks
        pass


def _is(handle: int, folder: Path) -> bool:
    """Whether the open folder is still the one at that path."""
    try:
        return os.path.samestat(os.fstat(handle), folder.stat())
    except FileNotFoundError:
        return False
