"""Render the tables from the result files: ``python benchmarks/report.py`` (``--check`` in CI).

Everything between ``<!-- NAME:begin -->`` and ``<!-- NAME:end -->`` in README.md and benchmarks/README.md is replaced,
nothing is typed by hand. The figures of the accuracies and the cards of the bundled generators are made anew where
what they show has changed.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from accuracy import cards, plots
from accuracy.aims import render_aims, render_answers
from accuracy.cells import accuracy, load_results
from accuracy.cost import render_cost
from accuracy.tables import headlines, render, render_tried
from timing.imagenet import render_imagenet
from timing.processes import RESULT, render_processes
from timing.scale import RESULT as SCALE
from timing.scale import render_scale
from timing.tables import load_speeds, render_details, render_headlines, render_summary

ROOT = Path(__file__).resolve().parent.parent


def pages(root: Path, results: list[dict[str, Any]]) -> dict[Path, dict[str, str]]:
    """What belongs between the markers of each page: path -> name -> Markdown."""
    benchmarks = root / "benchmarks"
    beside = {
        cell["source"]: f"{accuracy(cell)}, `{recipe}`"
        for recipe in ("tuned", "muon")  # the later where there are both
        for cell in results
        if (cell["row"], cell["classifier"], cell["recipe"], cell["ipc"]) == ("generator", "convnet3", recipe, 10)
    }
    speeds = load_speeds(benchmarks / "timing" / "results")
    return {
        root / "README.md": {"aims": render_aims(results), "speed": render_headlines(speeds)},
        benchmarks / "README.md": {
            "aims": render_answers(results),
            "paper-sets": headlines(results),
            "results": render(results),
            "cost": render_cost(results, root / "dim_data" / "bundled"),
            "speed": render_summary(speeds, beside),
            "speed-details": render_details(speeds, beside),
            "processes": render_processes(benchmarks / "timing" / RESULT.name),
            "imagenet": render_imagenet(),
            "scale": render_scale(benchmarks / "timing" / SCALE.name),
            "tried": render_tried(load_results(benchmarks / "accuracy" / "tried")),
        },
    }


def replaced(text: str, name: str, tables: str) -> str:
    """``text`` with what stands between the markers of ``name`` replaced by ``tables``."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    head, rest = text.split(begin, 1)
    return f"{head}{begin}\n\n{tables}\n\n{end}{rest.split(end, 1)[1]}"


def main(argv: list[str] | None = None) -> int:
    """Rewrite the tables; with ``--check`` only say whether they are up to date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=ROOT, help="of the repository")
    parser.add_argument("--check", action="store_true", help="exit with 1 if the tables are out of date")
    args = parser.parse_args(argv)
    accuracies, stale = args.root / "benchmarks" / "accuracy", []
    results = load_results(accuracies / "results")
    for path, tables in pages(args.root, results).items():
        text = fresh = path.read_text(encoding="utf-8")
        for name, content in tables.items():
            fresh = replaced(fresh, name, content)
        if fresh != text:
            stale.append(str(path.relative_to(args.root)))
            if not args.check:
                path.write_text(fresh, encoding="utf-8")
    for folder in sorted(path for path in (args.root / "dim_data" / "bundled").glob("*") if path.is_dir()):
        found = cards.measured(folder.name, results)
        if not cards.is_card_current(folder, found):
            stale.append(f"the card of {folder.name}")
            if not args.check:
                cards.write_card(folder, found)
    for name, (stamp, figure) in plots.figures(results).items():
        path = accuracies / "figures" / name
        if not plots.is_current(path, stamp):
            stale.append(name)
            if not args.check:
                plots.save(path, stamp, figure)
    if args.check:
        print(f"out of date: {', '.join(stale)}; run python benchmarks/report.py" if stale else "up to date")
    return int(args.check and bool(stale))


if __name__ == "__main__":
    raise SystemExit(main())
