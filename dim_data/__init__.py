"""dim_data: a dataset that fits in a file.

An image set distilled into a small conditional generator (DiM, arXiv 2303.04707), used as an ordinary PyTorch
dataset::

    from dim_data import DistilledDataset

    train_set = DistilledDataset("cifar10", ipc=50, transform=transform)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__all__ = [
    "DistillConfig",
    "DistilledCIFAR10",
    "DistilledDataset",
    "DistilledEuroSAT",
    "DistilledFashionMNIST",
    "DistilledLoader",
    "DistilledMNIST",
    "DistilledSVHN",
    "DivergenceError",
    "Evaluation",
    "Generator",
    "GeneratorConfig",
    "ImageSpec",
    "StoppedError",
    "bundled_names",
    "distill",
    "evaluate",
]

__version__ = "0.1.0"

if TYPE_CHECKING:
    from dim_data.distillation import DistillConfig, DivergenceError, distill
    from dim_data.format import GeneratorConfig
    from dim_data.generator import Generator, bundled_names
    from dim_data.images import ImageSpec
    from dim_data.loading import (
        DistilledCIFAR10,
        DistilledDataset,
        DistilledEuroSAT,
        DistilledFashionMNIST,
        DistilledLoader,
        DistilledMNIST,
        DistilledSVHN,
    )
    from dim_data.protocol import Evaluation, StoppedError, evaluate

_HOMES = {
    "DistillConfig": "distillation",
    "DistilledCIFAR10": "loading",
    "DistilledDataset": "loading",
    "DistilledEuroSAT": "loading",
    "DistilledFashionMNIST": "loading",
    "DistilledLoader": "loading",
    "DistilledMNIST": "loading",
    "DistilledSVHN": "loading",
    "DivergenceError": "distillation",
    "Evaluation": "protocol",
    "Generator": "generator",
    "GeneratorConfig": "format",
    "ImageSpec": "images",
    "StoppedError": "protocol",
    "bundled_names": "generator",
    "distill": "distillation",
    "evaluate": "protocol",
}


def __getattr__(name: str) -> Any:
    # Imported on first use: whoever trains on a distilled set never loads the half that makes one.
    if name not in _HOMES:
        raise AttributeError(f"module 'dim_data' has no attribute {name!r}")
    return getattr(importlib.import_module(f"dim_data.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
