"""Tables of what the results cost: distilling a bundled generator, and training one classifier."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from accuracy.cells import processors


def distilling(bundled: Path) -> str:
    """Minutes and images of each generator in ``bundled``, from its ``training_config.json``."""
    lines = [
        "| distilling | minutes | on a | images shown to the generator | to its pool |",
        "|---|--:|---|--:|--:|",
    ]
    for path in sorted(bundled.glob("*/training_config.json")):
        facts = json.loads(path.read_text(encoding="utf-8"))
        minutes = f"{facts['minutes']:.0f}"
        if "teacher_minutes" in facts:
            minutes += f", and {facts['teacher_minutes']:.0f} of its teacher"
        if "refining_minutes" in facts:
            minutes += f", and {facts['refining_minutes']:.0f} of refining, classifiers included"
        shown = f"{facts['images_shown']:,} | {facts['images_shown_to_pool']:,}"
        lines.append(f"| `{path.parent.name}` | {minutes} | {facts['device'].upper()} | {shown} |")
    return "\n".join(lines)


def training(results: list[dict[str, Any]]) -> str:
    """Minutes of one seed by classifier and budget, over all rows and recipes: median (range)."""
    budgets = sorted({cell["ipc"] for cell in results})
    minutes: dict[str, dict[int, list[float]]] = {}
    for cell in results:
        found = minutes.setdefault(cell["classifier"], {}).setdefault(cell["ipc"], [])
        found += [run["seconds"] / 60 for run in cell["runs"].values()]
    lines = [
        f"| training | {' | '.join(f'ipc {ipc} ({ipc * 10} k shown)' for ipc in budgets)} |",
        "|---|" + "--:|" * len(budgets),
    ]
    for name in sorted(minutes):
        spans = [_span(minutes[name][ipc]) if ipc in minutes[name] else "" for ipc in budgets]
        lines.append(f"| {name} | {' | '.join(spans)} |")
    return "\n".join(lines)


def _span(minutes: list[float]) -> str:
    median = f"{statistics.median(minutes):.3g}"
    return median if len(minutes) == 1 else f"{median} ({min(minutes):.3g} to {max(minutes):.3g})"


def render_cost(results: list[dict[str, Any]], bundled: Path) -> str:
    """Both tables, with what they say."""
    return "\n\n".join(
        [
            distilling(bundled),
            training(results),
            "Minutes of one seed, synthesis and test included: median (range) over rows and recipes, "
            f"on {processors(results)}.",
        ]
    )
