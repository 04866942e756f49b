"""What the text of an argument, or a file that it names, stands for."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from dim_data.hub import Accuracy
from dim_data.protocol import Evaluation

__all__ = ["minutes", "place", "positive", "read_evaluations", "seed"]


def place(text: str) -> Path:
    """A file or a folder; ``~`` is expanded, which shells leave in ``--out=~/runs``."""
    return Path(text).expanduser()


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.strip().isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text}")
    return int(text)


def seed(text: str) -> int:
    """A whole number of 64 bits."""
    if not text.strip().lstrip("+-").isdecimal() or not -(1 << 63) <= int(text) < 1 << 63:
        raise argparse.ArgumentTypeError(f"must be a whole number of 64 bits, got {text}")
    return int(text)


def minutes(text: str) -> float:
    """A number that is neither negative nor infinite."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of minutes, got {text}")
    return value


def read_evaluations(path: Path) -> list[Accuracy]:
    """What ``dim-data evaluate --json`` printed.

    Raises:
        ValueError: It is something else; the message names the file.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return [_measured(cell) for cell in (found if isinstance(found, list) else [found])]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is not what `dim-data evaluate --json` prints: {error!r}") from error


def _measured(cell: Any) -> Accuracy:
    names = {f.name for f in fields(Evaluation)}
    found: Any = {name: tuple(cell[name]) if isinstance(cell[name], list) else cell[name] for name in names}
    one = Evaluation(**found)
    if not one.accuracies or len(one.accuracies) != len(one.seeds) or not all(0 <= a <= 1 for a in one.accuracies):
        raise ValueError(f"accuracies must be shares from 0 to 1, one for each seed, got {one.accuracies}")
    return replace(Accuracy.of(one), tested_on=str(cell.get("tested_on", "")))
