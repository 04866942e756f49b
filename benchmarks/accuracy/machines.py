"""On what machine something was measured."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch

from dim_data.format import write_atomically
from dim_data.networks import fast_dtype


def hardware(device: torch.device) -> str:
    """The processor's name, cores used and number format."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {fast_dtype(device)}"
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = lines[0] if lines else name
    return f"{name}, {torch.get_num_threads()} of {os.cpu_count()} cores, {fast_dtype(device)}"


def sat_on(checkpoint: Path, device: torch.device) -> list[str]:
    """The processors of a training in several sittings, this one noted beside its checkpoint as the latest."""
    notes, before = checkpoint.with_suffix(".txt"), []
    if checkpoint.exists() and notes.exists():
        before = notes.read_text(encoding="utf-8").splitlines()
    used = list(dict.fromkeys([*before, hardware(device)]))
    write_atomically(notes, lambda file: file.write_text("\n".join(used), encoding="utf-8"))
    return used
