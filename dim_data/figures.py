"""Pictures for people: a grid of samples by class, and the curves of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor

from dim_data.files import write_atomically
from dim_data.specs import ImageSpec

__all__ = ["Painter", "sample_grid", "save_curves", "save_grid"]


class Painter(Protocol):
    """What paints labelled pictures: a :class:`~dim_data.generator.Generator`."""

    @property
    def spec(self) -> ImageSpec:
        """The images it makes."""

    def synthesize(self, labels: Tensor, serials: Tensor, seed: int = 0) -> Tensor:
        """Pictures of classes ``labels`` (B,): uint8 (B, C, H, W)."""


def sample_grid(
    generator: Painter, *, columns: int = 10, max_classes: int = 10, scale: int = 1, seed: int = 0
) -> Image.Image:
    """One row of ``columns`` samples for each of the first ``max_classes`` classes, two white pixels apart.

    Args:
        generator: What to show.
        columns: Samples per class.
        max_classes: Rows at most.
        scale: Pixels a side for each pixel.
        seed: Chooses the samples.
    """
    rows, gap, size = min(max_classes, generator.spec.num_classes), 2, generator.spec.size
    labels = torch.arange(rows).repeat_interleave(columns)
    images = generator.synthesize(labels, torch.arange(columns).repeat(rows), seed).cpu()
    height, width = rows * (size + gap) - gap, columns * (size + gap) - gap
    sheet = torch.full((images.shape[1], height, width), 255, dtype=torch.uint8)
    for index, image in enumerate(images):
        top, left = (index // columns) * (size + gap), (index % columns) * (size + gap)
        sheet[:, top : top + size, left : left + size] = image
    array = sheet.permute(1, 2, 0).squeeze(2).numpy()
    picture = Image.fromarray(array)
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)


def save_grid(
    generator: Painter, path: Path, *, columns: int = 10, max_classes: int = 10, scale: int = 2, seed: int = 0
) -> None:
    """Write :func:`sample_grid` to ``path`` as PNG."""
    picture = sample_grid(generator, columns=columns, max_classes=max_classes, scale=scale, seed=seed)
    write_atomically(path, lambda file: picture.save(file, "png"))


def save_curves(metrics: Path, path: Path) -> None:
    """Draw a run's ``metrics.jsonl`` to ``path`` as PNG: losses of each stage and held-out accuracy.

    Raises:
        ImportError: matplotlib is not installed; ``pip install dim-data[plots]`` brings it.
    """
    from matplotlib.figure import Figure

    stages: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for line in metrics.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        series = stages.setdefault(record["stage"], {})
        for name, value in record.items():
            if name not in ("stage", "step", "seconds"):
                series.setdefault(name, []).append((record["step"], value))
    panels = max(1, len(stages))
    figure = Figure(figsize=(4.5 * panels, 3.5), layout="constrained")
    row = figure.subplots(1, panels, squeeze=False)[0]
    for axes, (stage, series) in zip(row, stages.items(), strict=False):
        series = {name: points for name, points in series.items() if any(value for _, value in points)} or series
        for name, points in series.items():
            axes.plot(*zip(*points, strict=True), label=name, marker="o" if len(points) < 12 else None)
        positive = all(value > 0 for points in series.values() for _, value in points)  # a critic's scores are not
        axes.set(title=stage, xlabel="step", yscale="log" if positive and stage != "selection" else "linear")
        axes.legend()
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=120))
