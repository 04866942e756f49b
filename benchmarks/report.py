"""Render the tables from the result files: ``python benchmarks/report.py`` (``--check`` in CI).

``results/`` and ``aims.json`` go into README.md, what they cost and ``tried/`` into benchmarks/README.md, ``speed/``
into both: everything between ``<!-- NAME:begin -->`` and ``<!-- NAME:end -->`` is replaced, nothing is typed by hand.
The figures of the accuracies and the cards of the bundled generators are made anew where what they show has changed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import cards
import plots
from aims_table import render_aims
from cells import accuracy, processors
from cost_tables import render_cost
from speed_tables import render_details, render_summary

ROOT = Path(__file__).resolve().parent.parent
DATASETS = {"cifar10": "CIFAR-10", "fashion_mnist": "Fashion-MNIST", "mnist": "MNIST", "svhn": "SVHN"}
RECIPE_ORDER = ("tuned", "soft", "muon", "muon_soft", "muon_crop", "muon_crop_soft", "muon_crop_mixed", "paper")
ROW_ORDER = ("generator", "before", "stored", "real")


def load_results(folder: Path) -> list[dict[str, Any]]:
    """Every result file in ``folder``."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def label(cell: dict[str, Any]) -> str:
    """What a row of the table is called."""
    size = f"{cell['bytes'] / 1e6:.2f} MB" if "bytes" in cell else ""
    return {
        "generator": f"**`{cell['source']}`** ({cell.get('latents')}, {size})",
        "before": f"`{cell['source']}` before matching ({cell.get('latents')})",
        "stored": f"{cell.get('stored_images')} random real images as JPEG ({size})",
        "real": "real images, fresh, same protocol"
        + (f", soft labels of `{cell['soft_labels_of']}`" if "soft_labels_of" in cell else ""),
    }[cell["row"]]


def render(results: list[dict[str, Any]]) -> str:
    """A Markdown table for each dataset and recipe: of ConvNet-3, then one of all the other classifiers."""
    groups: dict[tuple[str, bool, str], list[dict[str, Any]]] = {}
    for cell in results:
        groups.setdefault((cell["dataset"], cell["classifier"] != "convnet3", cell["recipe"]), []).append(cell)
    parts = []
    for key in sorted(groups, key=lambda k: (list(DATASETS).index(k[0]), k[1], RECIPE_ORDER.index(k[2]))):
        dataset, others, recipe = key
        cells = groups[key]
        budgets = sorted({cell["ipc"] for cell in cells})
        heads = ["classifier"] * others + ["trained on", *(f"ipc {ipc} ({ipc * 10} k shown)" for ipc in budgets)]
        lines = [f"**{DATASETS[dataset]}**, {'other classifiers' if others else 'convnet3'}, recipe `{recipe}`", ""]
        lines += [f"| {' | '.join(heads)} |", "|---|" + "---|" * others + "--:|" * len(budgets)]
        rows: dict[str, dict[int, str]] = {}
        for cell in sorted(cells, key=lambda c: (c["classifier"], ROW_ORDER.index(c["row"]), c["source"])):
            name = f"{cell['classifier']} | {label(cell)}" if others else label(cell)
            rows.setdefault(name, {})[cell["ipc"]] = accuracy(cell)
        lines += [f"| {name} | " + " | ".join(row.get(i, "") for i in budgets) + " |" for name, row in rows.items()]
        parts.append("\n".join(lines))
    torches = sorted({run["versions"]["torch"] for cell in results for run in cell["runs"].values()})
    notes = (
        "Accuracy in percent on the full real test set after the last step, mean ± standard deviation over 3 seeds "
        f"(n says where fewer). Measured on: {processors(results)}; torch {', '.join(torches)}. Each file in "
        "`benchmarks/results/` holds its command."
    )
    return "\n\n".join([*parts, notes])


def render_tried(trials: list[dict[str, Any]]) -> str:
    """One Markdown table for each thing that was tried."""
    parts = []
    for trial in trials:
        columns = list(trial["rows"][0])
        lines = [f"**{trial['idea']}** ({trial['data']}): {trial['verdict']}.", ""]
        lines += ["| " + " | ".join(columns) + " |", "|---|" + "--:|" * (len(columns) - 1)]
        lines += ["| " + " | ".join(str(row[c]) for c in columns) + " |" for row in trial["rows"]]
        lines += ["", f"{trial['measured']}. {trial['hardware']}, torch {trial['torch']}. `{trial['command']}`"]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def replaced(text: str, name: str, tables: str) -> str:
    """``text`` with what stands between the markers of ``name`` replaced by ``tables``."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    head, rest = text.split(begin, 1)
    return f"{head}{begin}\n\n{tables}\n\n{end}{rest.split(end, 1)[1]}"


def main(argv: list[str] | None = None) -> int:
    """Rewrite the tables; with ``--check`` only say whether they are up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=ROOT, help="of the repository")
    parser.add_argument("--check", action="store_true", help="exit with 1 if the tables are out of date")
    args = parser.parse_args(argv)
    benchmarks, stale = args.root / "benchmarks", []
    results = load_results(benchmarks / "results")
    beside = {
        cell["source"]: accuracy(cell)
        for cell in results
        if (cell["row"], cell["classifier"], cell["recipe"], cell["ipc"]) == ("generator", "convnet3", "tuned", 10)
    }
    speed = {path.stem: json.loads(path.read_text()) for path in sorted((benchmarks / "speed").glob("*.json"))}
    for path, tables in (
        (
            args.root / "README.md",
            {"aims": render_aims(results), "results": render(results), "speed": render_summary(speed, beside)},
        ),
        (
            benchmarks / "README.md",
            {
                "cost": render_cost(results, args.root / "dim_data" / "bundled"),
                "tried": render_tried(load_results(benchmarks / "tried")),
                "speed": render_details(speed, beside),
            },
        ),
    ):
        text = fresh = path.read_text(encoding="utf-8")
        for name, content in tables.items():
            fresh = replaced(fresh, name, content)
        if fresh != text:
            stale.append(path.name)
            if not args.check:
                path.write_text(fresh, encoding="utf-8")
    for folder in sorted(path for path in (args.root / "dim_data" / "bundled").glob("*") if path.is_dir()):
        accuracies = cards.measured(folder.name, results)
        if not cards.is_card_current(folder, accuracies):
            stale.append(f"the card of {folder.name}")
            if not args.check:
                cards.write_card(folder, accuracies)
    for name, (stamp, figure) in plots.figures(results).items():
        path = benchmarks / "figures" / name
        if not plots.is_current(path, stamp):
            stale.append(name)
            if not args.check:
                plots.save(path, stamp, figure)
    if args.check:
        print(f"out of date: {', '.join(stale)}; run python benchmarks/report.py" if stale else "up to date")
    return int(args.check and bool(stale))


if __name__ == "__main__":
    raise SystemExit(main())
