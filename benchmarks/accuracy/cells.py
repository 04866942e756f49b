"""How a cell of the tables reads, and on what processors cells were measured."""

from __future__ import annotations

import statistics
from typing import Any


def percents(cell: dict[str, Any]) -> list[float]:
    """Accuracy of each seed, in percent."""
    return [100 * run["accuracy"] for run in cell["runs"].values()]


def accuracy(cell: dict[str, Any]) -> str:
    """Mean and spread in percent, with the number of seeds where it is not three."""
    values = percents(cell)
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    seeds = "" if len(values) == 3 else f" (n={len(values)})"
    return f"{statistics.fmean(values):.1f}{spread}{seeds}"


def processors(results: list[dict[str, Any]]) -> str:
    """Every processor that a training was done on; one in several sittings may name several."""
    used = (run["hardware"].split("; ") for cell in results for run in cell["runs"].values())
    return "; ".join(sorted({name for names in used for name in names}))
