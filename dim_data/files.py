"""The files of a generator by name, and writing one so that nobody ever sees half of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

__all__ = ["CARD", "CONFIG", "SAMPLES", "TRAINING_CONFIG", "WEIGHTS", "write_atomically"]

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
TRAINING_CONFIG, SAMPLES = "training_config.json", "samples.png"


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
