"""The aims set before the generators were made, what others publish, and what ours reached.

``aims.json`` names the cell that answers each aim: the best of those that fit it, so it was picked knowing its test
accuracy. The tables of the results have all of them.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accuracy.cells import accuracy, percents

AIMS = Path(__file__).with_name("aims.json")
LABELS = {"classes": "learning classes", "any": "soft labels allowed"}
NAMED = ("source", "classifier", "recipe", "ipc")
Cell = dict[str, Any]


def answer(dataset: str, aim: dict[str, Any], results: list[Cell]) -> Cell | None:
    """The cell of a generator that answers an aim, or ``None``: not measured."""
    for cell in results:
        if (cell["dataset"], cell["row"]) == (dataset, "generator") and all(cell[k] == aim[k] for k in NAMED):
            return cell
    return None


def gap(aim: dict[str, Any], cell: Cell | None) -> str:
    """How far an aim was missed, in words; empty where it was met."""
    if cell is None:
        return f"{aim['aim']} was not measured"
    missing = aim["aim"] - statistics.fmean(percents(cell))
    return f"{accuracy(cell)} is {missing:.1f} short of {aim['aim']}" if missing > 0 else ""


def named(cell: Cell) -> str:
    """A cell's accuracy and which cell it is."""
    return ", ".join([accuracy(cell), *(f"`{cell[key]}`" for key in ("source", "classifier", "recipe"))])


def missed(rows: list[dict[str, Any]], results: list[Cell], tried: bool) -> str:
    """A list of the aims that were missed, by how much, and if ``tried``, what was tried; empty where there is none."""
    lines = []
    for row in rows:
        for labels, name in LABELS.items():
            aim = row.get(labels)
            if aim and (short := gap(aim, answer(row["dataset"], aim, results))):
                more = f" Tried: {aim['tried']}." if tried and "tried" in aim else ""
                lines.append(f"- {row['what']}, {name}: {short}.{more}")
    return "\n\nMissed:\n\n" + "\n".join(lines) if lines else ""


def table(rows: list[dict[str, Any]], results: list[Cell], show: Callable[[Cell], str]) -> str:
    """A Markdown table of all aims, each answer as ``show`` says it."""
    heads = " | ".join(f"{name} | aim" for name in LABELS.values())
    lines = [f"| | published | {heads} |", "|---|---|" + "--:|--:|" * len(LABELS)]
    for row in rows:
        parts = []
        for labels in LABELS:
            aim = row.get(labels)
            cell = answer(row["dataset"], aim, results) if aim else None
            parts += [(show(cell) if cell else "not measured") if aim else "", str(aim["aim"]) if aim else ""]
        lines.append(f"| {row['what']} | {row['published']} | {' | '.join(parts)} |")
    return "\n".join(lines)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of ``aims.json``."""
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return rows


def render_aims(results: list[Cell], path: Path = AIMS) -> str:
    """For README.md: the accuracies alone, and which aims were missed."""
    rows = read_rows(path)
    return table(rows, results, accuracy) + missed(rows, results, tried=False)


def render_answers(results: list[Cell], path: Path = AIMS) -> str:
    """For benchmarks/README.md: which cell answers each aim too, and what was tried for those that were missed."""
    rows = read_rows(path)
    return table(rows, results, named) + missed(rows, results, tried=True)
