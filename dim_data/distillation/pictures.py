"""What of a run is for people to look at: its curves, and that no picture is worth a run."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dim_data.format import write_atomically
from dim_data.images import warn_caller

__all__ = ["decorate", "save_curves"]


def decorate(path: Path, draw: Callable[[Path], object]) -> None:
    """Let ``draw`` make the picture ``path``. If it cannot, a warning says so, and the run goes on."""
    try:
        draw(path)
    except Exception as error:  # a broken matplotlib raises whatever it likes
        warn_caller(f"{path} was not drawn: {type(error).__name__}: {error}")


def save_curves(metrics: Path, path: Path) -> None:
    """Draw a run's ``metrics.jsonl`` to ``path`` as PNG: losses of each stage and held-out accuracy.

    Raises:
        ImportError: matplotlib is not installed; ``pip install dim-data[plots]`` brings it.
        OSError: ``path`` cannot be written.
    """
    stages: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for line in metrics.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        series = stages.setdefault(record["stage"], {})
        for name, value in record.items():
            if name not in ("stage", "step", "seconds"):
                series.setdefault(name, []).append((record["step"], value))
    panels = max(1, len(stages))
    figure = _figure_class()(figsize=(4.5 * panels, 3.5), layout="constrained")
    row = figure.subplots(1, panels, squeeze=False)[0]
    for axes, (stage, series) in zip(row, stages.items(), strict=False):
        series = {name: points for name, points in series.items() if any(value for _, value in points)} or series
        for name, points in series.items():
            axes.plot(*zip(*points, strict=True), label=name, marker="o" if len(points) < 12 else None)
        positive = all(value > 0 for points in series.values() for _, value in points)  # a critic's scores are not
        axes.set(title=stage, xlabel="step", yscale="log" if positive and stage != "selection" else "linear")
        axes.legend()
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=120))


def _figure_class() -> Any:
    """Matplotlib's, whatever backend ``MPLBACKEND`` names: matplotlib cannot be imported if it is not there.

    That is so where a notebook starts a command in another environment. A figure needs none.
    """
    backend = os.environ.pop("MPLBACKEND", None) if "matplotlib" not in sys.modules else None
    try:
        from matplotlib import rcParams
        from matplotlib.figure import Figure
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend is not None:
        with contextlib.suppress(ValueError):
            rcParams["backend"] = backend  # as if it had been seen
    return Figure
