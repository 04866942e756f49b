"""Figures of the accuracies: against images shown, and against bytes beside what others published."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import statistics
from pathlib import Path
from typing import Any

from cells import percents
from matplotlib import colormaps
from matplotlib.figure import Figure
from PIL import Image

from dim_data.recipes import RECIPES

PUBLISHED = Path(__file__).with_name("published.json")
STAMP = "Source data"
"""Under this key a figure's PNG holds the digest of what it shows, so that ``report.py --check`` can tell."""

PANELS = {"trained by SGD": "sgd", "trained by Muon": "muon"}
LABEL_HEIGHT = 0.95  # in points of accuracy

Series = dict[str, list[tuple[float, float, float]]]
"""Name of a line -> its points (x, mean, standard deviation), by x."""


def accuracy_points(results: list[dict[str, Any]], optimizer: str, against: str) -> Series:
    """The lines of CIFAR-10 and ConvNet-3 from the result files.

    Args:
        results: What ``reproduce.py`` wrote.
        optimizer: Of the recipe.
        against: ``"images_shown"``, or ``"bytes"`` in megabytes, which real images do not have; there a line is a
            budget, and the smallest is left out: its training is too short for what is stored to matter.
    """
    lines: Series = {}
    for cell in results:
        if (cell["dataset"], cell["classifier"]) != ("cifar10", "convnet3") or cell["recipe"] == "paper":
            continue
        if RECIPES[cell["recipe"]].optimizer != optimizer:
            continue
        if against not in cell or (against == "bytes" and cell["ipc"] == 1):
            continue
        # Against bytes, generators of one kind differ by how much they store.
        source = cell["source"] if against == "images_shown" else f"a generator, {cell.get('latents')}"
        name = {
            "generator": source,
            "before": f"{source} before matching",
            "real": "real images, fresh",
            "stored": "random real JPEGs" + ("" if against == "bytes" else f" in the bytes of {cell['source']}"),
        }[cell["row"]]
        share = RECIPES[cell["recipe"]].soft_labels
        name += ", soft labels" if share == 1 else f", {share:.0%} soft labels" if share else ""
        name += ", crops" if "crop" in RECIPES[cell["recipe"]].augmentation else ""
        name += f", {cell['images_shown'] // 1000} k shown" if against == "bytes" else ""
        values = percents(cell)
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        x = cell[against] / (1e6 if against == "bytes" else 1)
        lines.setdefault(name, []).append((x, statistics.fmean(values), spread))
    return {name: sorted(points) for name, points in sorted(lines.items())}


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
    kept = {name: [point for point in points if point[1] >= floor] for name, points in ours.items()}
    return {name: points for name, points in kept.items() if points}


def draw(panels: dict[str, Series], published: list[dict[str, Any]], xlabel: str, title: str, joined: bool) -> Figure:
    """A panel for each optimizer: ours with error bars, a source in one colour; theirs in grey with their names."""
    figure = Figure(figsize=(9.6, 5.0), layout="constrained")
    figure.suptitle(title)
    names = sorted({name for ours in panels.values() for name in ours})
    colors = dict(zip(names, itertools.cycle(colormaps["tab20"].colors), strict=False))
    heights = label_heights([line["points"][-1] for line in published])
    for axes, (panel, ours) in zip(figure.subplots(1, len(panels), sharey=True), panels.items(), strict=True):
        for line, height in zip(published, heights, strict=True):
            x, y = zip(*line["points"], strict=True)
            axes.plot(x, y, color="0.65", marker=".", linewidth=0.8, zorder=1)
            axes.annotate(line["method"], (x[-1] * 1.05, height), va="center", fontsize=7, color="0.4")
        for name, points in ours.items():
            x, y, spread = zip(*points, strict=True)
            style = "" if not joined else "--" if name.startswith("real") else "-"
            axes.errorbar(x, y, spread, color=colors[name], label=name, marker="o", markersize=4, linestyle=style)
        axes.set(xscale="log", xlabel=xlabel, title=panel)
        axes.grid(alpha=0.2)
        axes.margins(x=0.2)
    figure.supylabel("accuracy on real test images (%)")
    handles = {
        name: handle for axes in figure.axes for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    if handles:
        ordered = sorted(handles)
        figure.legend([handles[name] for name in ordered], ordered, loc="outside lower center", ncols=3, fontsize=7)
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
    return {
        "accuracy_by_images.png": (
            digest(shown, first),
            draw(shown, first, "images shown to ConvNet-3", "CIFAR-10, by images shown", joined=True),
        ),
        "accuracy_by_bytes.png": (
            digest(stored, second),
            draw(stored, second, "megabytes stored", "CIFAR-10, ConvNet-3, by bytes stored", joined=False),
        ),
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
