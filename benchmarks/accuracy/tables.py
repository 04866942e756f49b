"""The tables of the accuracies, and of what was tried, in Markdown."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

from accuracy.cells import accuracy, processors
from accuracy.sets import DATASETS, PAPERS, convnet_of, said_of

PUBLISHED = Path(__file__).with_name("published.json")
HEADLINES = ("", "_noise")
"""Of a set's generators, what the names of those in the first table end in: its codes and its noise."""
CLASSIFIERS = {"convnet3": "ConvNet-3", "resnet18_half": "ResNet-18"}
HARD = ("tuned", "muon")
BUDGETS = (1, 10, 50)
RECIPE_ORDER = ("tuned", "soft", "muon", "muon_soft", "muon_crop", "muon_crop_soft", "muon_crop_mixed", "paper")
ROW_ORDER = ("generator", "refreshed", "before", "stored", "real")


def label(cell: dict[str, Any]) -> str:
    """What a row of the table is called."""
    size = f"{cell['bytes'] / 1e6:.2f} MB" if "bytes" in cell else ""
    return {
        "generator": f"**`{cell['source']}`** ({cell.get('latents')}, {size})",
        "refreshed": f"**`{cell['source']}`**, {cell.get('refresh', 1):.0%} of the pictures new in each epoch",
        "before": f"`{cell['source']}` before matching ({cell.get('latents')})",
        "stored": f"{cell.get('stored_images')} random real images as JPEG ({size})",
        "real": "real images, fresh, same protocol"
        + (f", soft labels of `{cell['soft_labels_of']}`" if "soft_labels_of" in cell else ""),
    }[cell["row"]]


def headlines(results: list[dict[str, Any]], published: Path = PUBLISHED) -> str:
    """One table of the four sets of the DiM paper: ours of each kind, real images, JPEGs, and what others publish."""
    claims = json.loads(published.read_text(encoding="utf-8"))["by_set"]
    heads = ["", "trained on", *(f"{ipc * 10} k shown" for ipc in BUDGETS)]
    lines = [f"| {' | '.join(heads)} |", "|---|---|" + "--:|" * len(BUDGETS)]
    for dataset, (classifier, called) in itertools.product(PAPERS, CLASSIFIERS.items()):
        cells = [
            cell
            for cell in results
            if (cell["dataset"], cell["classifier"]) == (dataset, classifier)
            and cell["row"] in ("generator", "real", "stored")
            and cell["recipe"] in HARD
            and (cell["row"] == "stored" or cell["source"] in [dataset + ending for ending in HEADLINES])
        ]
        order = sorted(cells, key=lambda c: (ROW_ORDER.index(c["row"]), c["source"], HARD.index(c["recipe"])))
        rows: dict[str, dict[int, str]] = {}
        for cell in order:
            rows.setdefault(f"{label(cell)}, `{cell['recipe']}`", {})[cell["ipc"]] = accuracy(cell)
        for claim in claims:
            if (claim["dataset"], claim["classifier"]) == (dataset, classifier):
                values = zip(BUDGETS, claim["accuracies"], strict=True)
                rows[f"{claim['method']}, as published"] = {ipc: str(value) for ipc, value in values if value}
        name = f"{DATASETS[dataset]}{said_of(cells)}, {called}"
        for place, (row, values) in enumerate(rows.items()):
            found = " | ".join(values.get(ipc, "") for ipc in BUDGETS)
            lines.append(f"| {name if not place else ''} | {row} | {found} |")
    return "\n".join(lines)


def render(results: list[dict[str, Any]]) -> str:
    """A Markdown table for each dataset and recipe: of its ConvNet, then one of all the other classifiers."""
    groups: dict[tuple[str, bool, str], list[dict[str, Any]]] = {}
    for cell in results:
        others = cell["classifier"] != convnet_of(cell["dataset"])
        groups.setdefault((cell["dataset"], others, cell["recipe"]), []).append(cell)
    parts = []
    for key in sorted(groups, key=lambda k: (list(DATASETS).index(k[0]), k[1], RECIPE_ORDER.index(k[2]))):
        dataset, others, recipe = key
        cells = groups[key]
        budgets = sorted({cell["ipc"] for cell in cells})
        heads = ["classifier"] * others + ["trained on", *(f"ipc {ipc} ({ipc * 10} k shown)" for ipc in budgets)]
        trained = "other classifiers" if others else convnet_of(dataset)
        lines = [f"**{DATASETS[dataset]}**{said_of(cells)}, {trained}, recipe `{recipe}`", ""]
        lines += [f"| {' | '.join(heads)} |", "|---|" + "---|" * others + "--:|" * len(budgets)]
        rows: dict[str, dict[int, str]] = {}
        for cell in sorted(cells, key=lambda c: (c["classifier"], ROW_ORDER.index(c["row"]), c["source"])):
            name = f"{cell['classifier']} | {label(cell)}" if others else label(cell)
            rows.setdefault(name, {})[cell["ipc"]] = accuracy(cell)
        lines += [f"| {name} | " + " | ".join(row.get(i, "") for i in budgets) + " |" for name, row in rows.items()]
        parts.append("\n".join(lines))
    torches = sorted({run["versions"]["torch"] for cell in results for run in cell["runs"].values()})
    notes = (
        "Accuracy in percent after the last step, on the full real test set where nothing else is said: mean and "
        "standard deviation over 3 seeds "
        f"(n says where fewer). Measured on: {processors(results)}; torch {', '.join(torches)}. Each file in "
        "`accuracy/results/` holds its command."
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
