"""What is known of a generator in a folder, JSON-ready: what ``dim-data info --json`` prints."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from dim_data.format import TRAINING_CONFIG, WEIGHTS, read_json
from dim_data.generator.model import Generator
from dim_data.hub import stated_accuracies

__all__ = ["describe", "read_training"]


def describe(generator: Generator, folder: Path) -> dict[str, Any]:
    """What a generator that lies in ``folder`` is, JSON-ready."""
    config, spec = generator.config, generator.spec
    return {
        "name": spec.name,
        "architecture": config.architecture,
        "source": config.source,
        "codes": config.codes,
        "rank": config.rank,
        "latents": generator.source.summary,
        "soft_labels": config.soft_labels,
        "parameters": sum(p.numel() for p in generator.parameters()),
        "bytes": (folder / WEIGHTS).stat().st_size,
        "classes": spec.num_classes,
        "size": spec.size,
        "channels": spec.channels,
        "folder": str(folder),
        "revision": generator.revision,
        "training": read_training(folder),
        "accuracies": [asdict(accuracy) for accuracy in stated_accuracies(folder)],
    }


def read_training(folder: Path) -> dict[str, Any]:
    """How the generator in ``folder`` was made, as far as it is known."""
    path = folder / TRAINING_CONFIG
    found = read_json(path) if path.is_file() else {}
    return found if isinstance(found, dict) else {}
