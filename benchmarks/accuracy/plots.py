"""Figures of the accuracies: against images shown, and against bytes beside what others published."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import math
import statistics
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from accuracy.cells import percents
from dim_data.protocol import RECIPES

PUBLISHED = Path(__file__).with_name("published.json")
STAMP = "Source data"
"""Under this key a figure's PNG holds the digest of what it shows, so that ``report.py --check`` can tell."""

PANELS = {"trained by SGD": "sgd", "trained by Muon": "muon"}
GROWTH = {"ConvNet-3": "convnet3", "ResNet-18, half as wide": "resnet18_half"}
LABEL_HEIGHT = 1.0  # in points of accuracy
REAL = "real images, fresh"
KINDS = ("cifar10", "cifar10_noise", REAL)
"""What the figure of growth compares: stored codes, noise and what both stand in for."""
LABELS = {
    0: ("classes", "o", "-"),
    0.5: ("half soft labels, half classes", "D", "-."),
    1: ("soft labels", "^", "--"),
}
"""Share of soft labels in what a recipe learns -> what that is called, its marker and its line."""


class Line(NamedTuple):
    """What the points of one line have in common.

    Attributes:
        source: What the classifier was trained on; gives the colour.
        share: Of soft labels, a key of :data:`LABELS`; gives the marker.
        crops: Whether images were shifted too; hollow markers.
        shown: Thousands of images shown, by the size of the marker; 0 where they are the axis.
    """

    source: str
    share: float
    crops: bool = False
    shown: int = 0


Series = dict[Line, list[tuple[float, float, float]]]
"""A line -> its points (x, mean, standard deviation), by x."""


def accuracy_points(
    results: list[dict[str, Any]], optimizer: str, against: str, classifier: str = "convnet3"
) -> Series:
    """The lines of CIFAR-10 from the result files.

    Args:
        results: What ``reproduce.py`` wrote.
        optimizer: Of the recipe.
        against: ``"images_shown"``, or ``"bytes"`` in megabytes, which real images do not have; there a line is a
            budget, and the smallest is left out: its training is too short for what is stored to matter.
        classifier: That was trained.
    """
    lines: Series = {}
    for cell in results:
        if (cell["dataset"], cell["classifier"]) != ("cifar10", classifier) or cell["recipe"] == "paper":
            continue
        if cell["row"] == "refreshed":
            continue
        recipe = RECIPES[cell["recipe"]]
        if recipe.optimizer != optimizer or against not in cell or (against == "bytes" and cell["ipc"] == 1):
            continue
        # Against bytes, generators of one kind differ by how much they store.
        generator = cell["source"] if against == "images_shown" else f"a generator, {cell.get('latents')}"
        source = {
            "generator": generator,
            "before": f"{generator} before matching",
            "real": REAL,
            "stored": "random real JPEGs" + ("" if against == "bytes" else f" in the bytes of {cell['source']}"),
        }[cell["row"]]
        shown = cell["images_shown"] // 1000 if against == "bytes" else 0
        line = Line(source, recipe.soft_labels, "crop" in recipe.augmentation, shown)
        values = percents(cell)
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        x = cell[against] / (1e6 if against == "bytes" else 1)
        lines.setdefault(line, []).append((x, statistics.fmean(values), spread))
    return {line: sorted(points) for line, points in sorted(lines.items())}


def label_heights(ends: list[tuple[float, float]]) -> list[float]:
    """Where the names of lines with these last points go: beside them, but not on one another."""
    heights = [y for _, y in ends]
    for column in {x for x, _ in ends}:
        order = sorted((i for i, (x, _) in enumerate(ends) if x == column), key=lambda i: ends[i][1])
        for lower, upper in itertools.pairwise(order):
            heights[upper] = max(heights[upper], heights[lower] + LABEL_HEIGHT)
        excess = statistics.fmean(heights[i] - ends[i][1] for i in order)
        for i in order:
            heights[i] -= excess
    return heights


def comparable(ours: Series, published: list[dict[str, Any]]) -> Series:
    """``ours`` without points below all that is published: they would flatten the rest, and tables have them."""
    floor = min(y for line in published for _, y in line["points"])
    kept = {line: [point for point in points if point[1] >= floor] for line, points in ours.items()}
    return {line: points for line, points in kept.items() if points}


def marker_size(shown: int) -> float:
    """In points: larger by the same step each time ten times as many thousand images are shown."""
    return 4.5 + 4 * math.log10(shown / 100) if shown else 4.5


def keys(lines: set[Line], colors: dict[str, Any]) -> list[Line2D]:
    """What the legend explains: each colour, and each marker, hollow and size that is there."""

    def key(label: str, marker: str = "o", style: str = "", color: Any = "0.2", **more: Any) -> Line2D:
        return Line2D([], [], label=label, marker=marker, linestyle=style, color=color, **{"markersize": 4.5, **more})

    sources, shares = {line.source for line in lines}, {line.share for line in lines}
    budgets = sorted({line.shown for line in lines} - {0})
    found = [key(name, "s", color=color, markersize=6) for name, color in colors.items() if name in sources]
    found += [
        key(f"learning {name}", marker, "" if budgets else style)
        for share, (name, marker, style) in LABELS.items()
        if share in shares
    ]
    if any(line.crops for line in lines):
        found.append(key("hollow: crops", markerfacecolor="white"))
    return [*found, *(key(f"{shown} k shown", markersize=marker_size(shown)) for shown in budgets)]


def draw(panels: dict[str, Series], published: list[dict[str, Any]], xlabel: str, title: str) -> Figure:
    """A panel for each optimizer: ours with error bars, a source in one colour; theirs in grey with their names."""
    figure = Figure(figsize=(9.6, 6.0), layout="constrained")
    figure.suptitle(title)
    lines = {line for ours in panels.values() for line in ours}
    sources = sorted({line.source for line in lines} - {REAL})
    palette = colormaps["tab10" if len(sources) <= 10 else "tab20"].colors
    colors = dict(zip(sources, itertools.cycle(palette), strict=False)) | {REAL: "black"}
    heights = label_heights([line["points"][-1] for line in published])
    for axes, (panel, ours) in zip(figure.subplots(1, len(panels), sharey=True), panels.items(), strict=True):
        for line, height in zip(published, heights, strict=True):
            x, y = zip(*line["points"], strict=True)
            axes.plot(x, y, color="0.65", marker=".", linewidth=0.8, zorder=1)
            axes.annotate(line["method"], (x[-1] * 1.1, height), va="center", fontsize=7, color="0.4")
        for key, points in ours.items():
            x, y, spread = zip(*points, strict=True)
            _, marker, style = LABELS[key.share]
            axes.errorbar(
                x,
                y,
                spread,
                color=colors[key.source],
                marker=marker,
                markersize=marker_size(key.shown),
                markerfacecolor="white" if key.crops else None,
                linestyle="" if key.shown else style,
            )
        axes.set(xscale="log", xlabel=xlabel, title=panel)
        axes.grid(alpha=0.2)
        axes.margins(x=0.2)
        axes.set_xlim(right=1.4 * axes.get_xlim()[1])  # for the names
    figure.supylabel("accuracy on real test images (%)")
    if lines:
        figure.legend(handles=keys(lines, colors), loc="outside lower center", ncols=4, fontsize=7)
    return figure


def digest(*content: Any) -> str:
    """Of anything that JSON can say."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def figures(results: list[dict[str, Any]]) -> dict[str, tuple[str, Figure]]:
    """File name -> (digest of what it shows, the figure)."""
    published = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    first, second = published["by_images_shown"], published["by_bytes"]
    shown, stored = (
        {panel: comparable(accuracy_points(results, optimizer, against), theirs) for panel, optimizer in PANELS.items()}
        for against, theirs in (("images_shown", first), ("bytes", second))
    )
    grown = {
        panel: {
            line: points
            for line, points in accuracy_points(results, "muon", "images_shown", classifier).items()
            if line.source in KINDS and not line.share
        }
        for panel, classifier in GROWTH.items()
    }
    of_images, of_bytes, of_growth = (
        digest({panel: list(series.items()) for panel, series in panels.items()}, theirs)
        for panels, theirs in ((shown, first), (stored, second), (grown, []))
    )
    return {
        "accuracy_by_images.png": (of_images, draw(shown, first, "images shown to ConvNet-3", "CIFAR-10")),
        "accuracy_by_bytes.png": (of_bytes, draw(stored, second, "megabytes stored", "CIFAR-10, ConvNet-3")),
        "growth.png": (of_growth, draw(grown, [], "images shown", "CIFAR-10, learning classes by Muon")),
    }


def is_current(path: Path, stamp: str) -> bool:
    """Whether the PNG at ``path`` shows the data of this digest."""
    if not path.exists():
        return False
    with Image.open(path) as picture:
        return bool(picture.info.get(STAMP) == stamp)


def save(path: Path, stamp: str, figure: Figure) -> None:
    """Write the figure with its digest inside."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110, metadata={STAMP: stamp})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file.getvalue())
