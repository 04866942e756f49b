"""The files of a generator by name, and writing one so that nobody ever sees half of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

__all__ = [
    "CARD",
    "CONFIG",
    "MAX_BYTES",
    "SAMPLES",
    "TRAINING_CONFIG",
    "WEIGHTS",
    "check_size",
    "write_atomically",
]

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
TRAINING_CONFIG, SAMPLES = "training_config.json", "samples.png"

MAX_BYTES = {CONFIG: 4_000_000, WEIGHTS: 1 << 32, CARD: 2_000_000, TRAINING_CONFIG: 4_000_000}
"""The files of a generator that are read, each with the size above which it is none."""


def check_size(what: str, name: str, size: int) -> None:
    """Raise ``ValueError`` if a file called ``name`` may not have ``size`` bytes."""
    if size > MAX_BYTES[name]:
        raise ValueError(f"{what} has {size} bytes; the limit is {MAX_BYTES[name]}: not a generator's")


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then rename it: a reader never sees half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        write(temporary)
        temporary.chmod(mode)  # safetensors makes files that only their owner can read
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
