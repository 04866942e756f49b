"""Accuracy: one cell of the tables, or all that are missing.

    python benchmarks/reproduce.py cifar10 --ipc 10                 # a cell; --help says what else there is
    python benchmarks/reproduce.py missing --max-minutes 60         # the cells that have no result file yet
    torchrun --nproc_per_node 4 benchmarks/reproduce.py missing     # ... four at a time
    python benchmarks/reproduce.py refine runs/cifar10 --out runs/refined    # how the bundled cifar10 was made
    python benchmarks/reproduce.py prior cifar10 --out runs/noise            # how the bundled cifar10_noise was made

Each takes ``--help``. Results go to ``accuracy/results/``; ``report.py`` renders them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from accuracy import measure, missing, prior, refine
from dim_data.networks import is_first, joined

COMMANDS = {"missing": missing.main, "refine": refine.main, "prior": prior.main}


def main(argv: Sequence[str] | None = None) -> Any:
    """Run the command that the first word names, or else measure one cell."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in ("refine", "prior") and not is_first():
        return None  # it has one process's work
    with joined():
        if words and words[0] in COMMANDS:
            return COMMANDS[words[0]](words[1:])
        return measure.main(words)


if __name__ == "__main__":
    try:
        main()
    except FileNotFoundError as error:
        sys.exit(f"reproduce.py: {error}")
