"""The cells of the tables: their result files, how one reads, and on what processors they were measured."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from dim_data import Generator
from dim_data.format import WEIGHTS

RESULTS = Path(__file__).with_name("results")


def weights_of(generator: Generator) -> Path:
    """Where the weights of a generator that was loaded are."""
    return (generator.folder or Path()) / WEIGHTS


def result_path(folder: Path, dataset: str, row: str, source: str, classifier: str, recipe: str, ipc: int) -> Path:
    """The result file of a cell; ``source`` is a generator's name, for real images the dataset's."""
    return folder / f"{dataset}-{row}-{source}-{classifier}-{recipe}-ipc{ipc}.json"


def runs_in(path: Path) -> dict[str, Any]:
    """The runs of a result file, by seed; none where there is no file yet."""
    runs: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["runs"] if path.exists() else {}
    return runs


def load_results(folder: Path) -> list[dict[str, Any]]:
    """Every result file in ``folder``."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


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
