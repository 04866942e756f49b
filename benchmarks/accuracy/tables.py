"""The tables of the accuracies, and of what was tried, in Markdown."""

from __future__ import annotations

from typing import Any

from accuracy.cells import accuracy, processors

DATASETS = {"cifar10": "CIFAR-10", "fashion_mnist": "Fashion-MNIST", "mnist": "MNIST", "svhn": "SVHN"}
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
