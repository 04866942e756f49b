"""Measure every cell of the tables that is still missing, cheapest first, until the time is up.

    python benchmarks/reproduce.py missing --data-root DIR --max-minutes 60
    python benchmarks/reproduce.py missing --data-root DIR --datasets cifar10 --classifiers convnet3 --ipc 1 10

A cell is one call of :mod:`accuracy.measure` for one seed; what is in ``results/`` already is passed over, so the same
call goes on where it stopped. Time is looked at between cells. ``--list`` only says what is missing, ``--begun`` leaves
out cells that no seed was measured of. Under torchrun each rank takes the next cell.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from accuracy import measure
from accuracy.cells import RESULTS, result_path, runs_in
from accuracy.sets import DATASETS, convnet_of
from dim_data import Generator, bundled_names
from dim_data.networks import ALONE, Ranks, WorkQueue
from dim_data.protocol import RECIPES
from options import HelpFormatter

CLASSIFIERS = {
    "convnet3": 1.0,
    "convnet4": 4.5,
    "resnet10_half": 1.3,
    "resnet18_half": 2.8,
    "resnet18_ap_half": 4.2,
    "resnet18": 11.0,
}
"""What an image costs in training, in ConvNet-3's."""
ROWS = ("generator", "real", "stored")
Cell = tuple[str, str, str, str, str, int, int]
"""Dataset, row, source, classifier, recipe, ipc, seed."""


def list_cells(args: argparse.Namespace) -> list[Cell]:
    """The cells asked for that make sense, cheapest first."""
    cells: list[Cell] = []
    for source in bundled_names():
        config = Generator.from_pretrained(source).config
        if config.spec.name not in args.datasets:
            continue
        for row, classifier, recipe, ipc, seed in itertools.product(
            args.rows, args.classifiers, args.recipes, args.ipc, args.seeds
        ):
            if RECIPES[recipe].soft_labels and (row == "stored" or not config.soft_labels):
                continue
            if classifier.startswith("convnet") and classifier != convnet_of(config.spec.name):
                continue  # one depth of ConvNet at each size
            if row == "real" and source != config.spec.name:
                continue  # real images stand beside the set's own generator once
            cells.append((config.spec.name, row, source, classifier, recipe, ipc, seed))
    return sorted(cells, key=lambda c: (c[5] * CLASSIFIERS[c[3]], c[6]))


def measured(cell: Cell, folder: Path) -> set[int]:
    """The seeds in the cell's result file."""
    dataset, row, source, classifier, recipe, ipc, _ = cell
    path = result_path(folder, dataset, row, dataset if row == "real" else source, classifier, recipe, ipc)
    return {int(seed) for seed in runs_in(path)}


def lacking(args: argparse.Namespace) -> list[Cell]:
    """The cells asked for whose seed is not in their result file."""
    found = [(cell, measured(cell, args.out)) for cell in list_cells(args)]
    return [cell for cell, seeds in found if cell[-1] not in seeds and (seeds or not args.begun)]


def read_arguments(words: Sequence[str]) -> argparse.Namespace:
    """Which cells to look for, and for how long to measure."""
    parser = argparse.ArgumentParser("reproduce.py missing", description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--datasets", nargs="+", choices=list(DATASETS), default=list(DATASETS), help="default: all")
    parser.add_argument(
        "--classifiers", nargs="+", choices=list(CLASSIFIERS), default=list(CLASSIFIERS), help="default: all"
    )
    parser.add_argument("--recipes", nargs="+", choices=list(RECIPES), default=list(RECIPES), help="default: all")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), help="default: all")
    parser.add_argument("--ipc", type=int, nargs="+", default=[1, 10, 50], help="images of each class in an epoch")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one training each")
    parser.add_argument("--epochs", type=int, default=1000, help="epochs of each training")
    parser.add_argument(
        "--max-minutes", type=float, default=float("inf"), help="begin no cell after so long (default: no limit)"
    )
    parser.add_argument("--begun", action="store_true", help="only cells that some seed was measured of")
    parser.add_argument("--list", action="store_true", help="only print what is missing")
    parser.add_argument("--data-root", default=os.environ.get("DIM_DATA_ROOT"), help="default: DIM_DATA_ROOT")
    parser.add_argument("--device", help="default: CUDA where there is one")
    parser.add_argument("--out", type=Path, default=RESULTS, help="a folder (default: accuracy/results)")
    return parser.parse_args(words)


def main(words: Sequence[str]) -> int:
    """Fill the tables; returns how many cells are still missing."""
    args = read_arguments(words)
    deadline = time.monotonic() + 60 * args.max_minutes
    missing = lacking(args)
    queue = WorkQueue(Ranks.present(), "missing", {"words": list(words)})
    while missing and not args.list and time.monotonic() < deadline:
        dataset, row, source, classifier, recipe, ipc, seed = cell = missing.pop(0)
        if not queue.take(repr(cell)):
            continue
        one = [dataset, "--row", row, "--source", source, "--classifier", classifier, "--recipe", recipe]
        one += ["--ipc", ipc, "--seeds", seed, "--epochs", args.epochs]
        one += ["--data-root", args.data_root] if args.data_root else []
        one += ["--device", args.device] if args.device else []
        if args.out != RESULTS:  # a published command names no folder of the machine it ran on
            one += ["--out", args.out]
        measure.main([str(word) for word in one], ALONE)
    for cell in missing if args.list else ():
        print(*cell)
    print(f"{len(missing)} cells are missing", file=sys.stderr)
    return len(missing)
