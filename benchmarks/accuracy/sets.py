"""The image sets of the tables: what they are called, where they are read, and what must be said of numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from dim_data.hub.card import EUROSAT
from dim_data.images import KNOWN_SPECS, LabelledImages, load_real

DATASETS = {
    "cifar10": "CIFAR-10",
    "svhn": "SVHN",
    "fashion_mnist": "Fashion-MNIST",
    "mnist": "MNIST",
    "eurosat": "EuroSAT",
}
"""Names by those that commands take, in the order of the tables: first the four sets of the DiM paper."""
PAPERS = tuple(DATASETS)[:4]
CONVNETS = {"eurosat": "convnet4"}
"""The ConvNet of the first tables of a set, where it is not ConvNet-3."""
SVHN_TEST = 26_032
"""Images of SVHN's official test set."""


def convnet_of(dataset: str) -> str:
    """The ConvNet that the field uses at the size of a set's images."""
    return CONVNETS.get(dataset, "convnet3")


def real_images(dataset: str, split: str, root: str | Path | None) -> LabelledImages:
    """The images of a set: those the library knows by name, or ``eurosat.npz`` under ``root``.

    EuroSAT has no official split: its file says which images are held out. A mirrored satellite image is of its class.

    Raises:
        FileNotFoundError: They are not there.
    """
    if dataset in KNOWN_SPECS or dataset not in DATASETS:
        return load_real(dataset, split=split, root=root)
    if root is None:
        raise FileNotFoundError(f"say where {dataset}.npz is: --data-root, or DIM_DATA_ROOT")
    data = load_real(Path(root) / f"{dataset}.npz", split=split)
    return replace(data, spec=replace(data.spec, mirror=True, classes=EUROSAT))


def unofficial(dataset: str, count: int) -> str:
    """What ``count`` test images of a set are, where that is not the official test set; else empty."""
    if dataset == "svhn" and count != SVHN_TEST:
        return f"{count:,} digits of held-out training photos, not the official test set"
    return f"{count:,} held-out images, as there is no official test set" if dataset == "eurosat" else ""


def said_of(cells: list[dict[str, Any]]) -> str:
    """What the cells of one set were tested on, as a parenthesis after its name; empty of an official test set."""
    found = sorted({cell["tested_on"] for cell in cells if cell.get("tested_on")})
    if len(found) > 1 or (found and not all(cell.get("tested_on") for cell in cells)):
        raise ValueError(f"cells of one set were tested on different images: {found}")
    return f" ({found[0]})" if found else ""
