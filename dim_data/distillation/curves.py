"""The curves of a run, for people."""

from __future__ import annotations

import json
from pathlib import Path

from dim_data.format import write_atomically

__all__ = ["save_curves"]


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
