"""The files of a generator by name, and writing one so that nobody ever sees half of it."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

__all__ = [
    "BEFORE",
    "CARD",
    "CONFIG",
    "MAX_BYTES",
    "RESULT",
    "RUN",
    "SAMPLES",
    "TRAINING_CONFIG",
    "WEIGHTS",
    "check_size",
    "check_writable",
    "write_atomically",
    "write_json",
]

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
TRAINING_CONFIG, SAMPLES = "training_config.json", "samples.png"
RUN, RESULT, BEFORE = "run.json", "generator", "before_matching"
"""What tells that a folder is of a run, and in it the folders of its generator and of that before matching."""

MAX_BYTES = {CONFIG: 4_000_000, WEIGHTS: 1 << 32, CARD: 2_000_000, TRAINING_CONFIG: 4_000_000}
"""The files of a generator that are read, each with the size above which it is none."""


def check_size(what: str, name: str, size: int) -> None:
    """Raise ``ValueError`` if a file called ``name`` may not have ``size`` bytes."""
    if size > MAX_BYTES[name]:
        raise ValueError(f"{what} has {size} bytes; the limit is {MAX_BYTES[name]}: not a generator's")


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then rename it: a reader never sees half a file.

    Raises:
        OSError: It cannot be written; the message names ``path``, and what was there before is intact.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        write(temporary)
        temporary.chmod(mode)  # safetensors makes files that only their owner can read
        os.replace(temporary, path)
    except OSError as error:  # of a full disk it names no file, of a folder that is missing the temporary one
        raise _named(error, path) from error
    except (RuntimeError, SafetensorError) as error:  # what torch and safetensors say of a full disk
        raise OSError(f"could not write {str(path)!r}: {error}") from error
    finally:
        with contextlib.suppress(OSError):  # there may be no such folder
            temporary.unlink()


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON by :func:`write_atomically`.

    Raises:
        OSError: It cannot be written; what was there before is intact.
    """
    text = json.dumps(value, indent=2) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def check_writable(path: Path, *, folder: bool = False) -> None:
    """Find out now what writing to ``path`` would meet after hours of work. Nothing is left behind.

    Args:
        path: The file that :func:`write_atomically` will write.
        folder: It is a folder, to be made with its parents if it is not there, and to be written into.

    Raises:
        OSError: It cannot be written; the message says why.
    """
    try:
        whole = path.absolute()
        device = whole.parent in (Path("/dev"), Path("/dev/fd"))  # those that lead to a file are none
        place = next(p for p in (whole, *whole.parents) if p.exists()) if folder else whole.parent
        problem = ""
        if folder and not place.is_dir():
            problem = f"{str(place)!r} is a file; choose another folder"
        elif not folder and (device or (whole.exists() and not whole.is_file())):
            problem = "it is a folder; name a file" if whole.is_dir() else "it is a device or a pipe; name a file"
        elif not folder and not place.is_dir():
            problem = f"{str(place)!r} is no folder; make it first"
        if problem:
            raise OSError(f"cannot write to {str(path)!r}: {problem}")
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(bytes(4096))  # an empty file fits on a full disk
    except OSError as error:
        raise (error if error.errno is None else _named(error, path)) from error


def _named(error: OSError, path: Path) -> OSError:
    """The same error of ``path``."""
    if error.errno is None:
        return OSError(f"could not write {str(path)!r}: {error}")
    return OSError(error.errno, f"could not write {str(path)!r}: {error.strerror}")
