"""The table of what was aimed at: the published best, the aims set before ours was made, and what it reached.

``aims.json`` names the cell that answers each aim: the best of those that fit it, so it was picked knowing its test
accuracy. The tables of the results have all of them.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from cells import accuracy, percents

AIMS = Path(__file__).with_name("aims.json")
LABELS = {"classes": "learning classes", "any": "soft labels allowed"}
NAMED = ("source", "classifier", "recipe", "ipc")


def answer(dataset: str, aim: dict[str, Any], results: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The cell of a generator that answers an aim, or ``None``: not measured."""
    for cell in results:
        if (cell["dataset"], cell["row"]) == (dataset, "generator") and all(cell[k] == aim[k] for k in NAMED):
            return cell
    return None


def gap(aim: dict[str, Any], cell: dict[str, Any] | None) -> str:
    """How far an aim was missed, in words; empty where it was met."""
    if cell is None:
        return f"{aim['aim']} was not measured"
    missing = aim["aim"] - statistics.fmean(percents(cell))
    return f"{accuracy(cell)} is {missing:.1f} short of {aim['aim']}" if missing > 0 else ""


def render_aims(results: list[dict[str, Any]], path: Path = AIMS) -> str:
    """A Markdown table of all aims, and below it each that was missed, by how much and what was tried."""
    lines = [
        f"| | published | {' | '.join(f'{name} | aim' for name in LABELS.values())} |",
        "|---|---|" + "--:|--:|" * len(LABELS),
    ]
    missed = []
    for row in json.loads(path.read_text(encoding="utf-8"))["rows"]:
        parts = []
        for labels, name in LABELS.items():
            aim = row.get(labels)
            cell = answer(row["dataset"], aim, results) if aim else None
            named = [f"`{cell[key]}`" for key in ("source", "classifier", "recipe")] if cell else []
            found = ", ".join([accuracy(cell), *named]) if cell else "not measured"
            parts.append(found if aim else "")
            parts.append(f"{aim['aim']}" if aim else "")
            if aim and (short := gap(aim, cell)):
                tried = f" Tried: {aim['tried']}." if "tried" in aim else ""
                missed.append(f"- {row['what']}, {name}: {short}.{tried}")
        lines.append(f"| {row['what']} | {row['published']} | {' | '.join(parts)} |")
    text = "\n".join(lines)
    return f"{text}\n\nMissed:\n\n" + "\n".join(missed) if missed else text
