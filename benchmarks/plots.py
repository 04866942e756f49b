"""Figures of the accuracies: against images shown, and against bytes beside what others published."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import statistics
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

PUBLISHED = Path(__file__).with_name("published.json")
STAMP = "Source data"
"""Under this key a figure's PNG holds the digest of what it shows, so that ``report.py --check`` can tell."""

LABEL_HEIGHT = 0.95  # in points of accuracy

Series = dict[str, list[tuple[float, float, float]]]
"""Name of a line -> its points (x, mean, standard deviation), by x."""


def accuracy_points(results: list[dict[str, Any]], against: str) -> Series:
    """The lines of CIFAR-10 and ConvNet-3 from the result files.

    Args:
        results: What ``reproduce.py`` wrote.
        against: ``"images_shown"``, or ``"bytes"`` in megabytes, which real images do not have; there a line is a
            budget, and the smallest is left out: its training is too short for what is stored to matter.
    """
    lines: Series = {}
    for cell in results:
        if (cell["dataset"], cell["classifier"]) != ("cifar10", "convnet3") or cell["recipe"] == "paper":
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
        name += ", soft labels" if cell["recipe"] == "soft" else ""
        name += f", {cell['images_shown'] // 1000} k shown" if against == "bytes" else ""
        values = [100 * run["accuracy"] for run in cell["runs"].values()]
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


def draw(ours: Series, published: list[dict[str, Any]], xlabel: str, title: str, joined: bool) -> Figure:
    """One panel: ours with error bars, theirs in grey with their names."""
    figure = Figure(figsize=(6.4, 5.0), layout="constrained")
    axes = figure.subplots()
    heights = label_heights([line["points"][-1] for line in published])
    for line, height in zip(published, heights, strict=True):
        x, y = zip(*line["points"], strict=True)
        axes.plot(x, y, color="0.65", marker=".", linewidth=0.8, zorder=1)
        axes.annotate(line["method"], (x[-1] * 1.05, height), va="center", fontsize=7, color="0.4")
    for name, points in ours.items():
        x, y, spread = zip(*points, strict=True)
        dashed = "--" if name.startswith("real") else "-"
        axes.errorbar(x, y, spread, label=name, marker="o", markersize=4, linestyle=dashed if joined else "", zorder=2)
    axes.set(xscale="log", xlabel=xlabel, ylabel="accuracy on real test images (%)", title=title)
    axes.grid(alpha=0.2)
    axes.margins(x=0.2)
    if ours:
        figure.legend(loc="outside lower center", ncols=2, fontsize=7)
    return figure


def digest(*content: Any) -> str:
    """Of anything that JSON can say."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def figures(results: list[dict[str, Any]]) -> dict[str, tuple[str, Figure]]:
    """File name -> (digest of what it shows, the figure)."""
    published = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    shown, stored = accuracy_points(results, "images_shown"), accuracy_points(results, "bytes")
    first, second = published["by_images_shown"], published["by_bytes"]
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
