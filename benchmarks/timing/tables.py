"""The result files of ``speed.py`` as Markdown: a few rows for README.md, long tables for benchmarks/README.md.

Beside a generator's speed stands its accuracy, which ``report.py`` hands over: bundled name -> percent and recipe.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Accuracies = dict[Any, str]
Sections = dict[str, dict[str, Any]]

TITLES = {
    "loader": "Loaders",
    "training": "Training",
    "generator": "Generators",
    "distilling": "Distilling",
    "growth": "Growth",
    "start": "Start",
    "profile": "Profile",
}


def span(values: list[float], unit: str = "") -> str:
    """Median and range."""
    middle, low, high = values
    return f"{middle:,.3g}{unit} ({low:,.3g} to {high:,.3g})"


def times(value: float) -> str:
    """A ratio."""
    return f"{value:,.3g}x"


def table(heads: list[str], rows: list[list[str]]) -> str:
    """Markdown; all columns but the first are numbers."""
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "--:|" * (len(heads) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def named(rows: list[dict[str, Any]], start: str) -> dict[str, Any]:
    """The row whose name begins like that."""
    return next(row for row in rows if row["name"].startswith(start))


def load_speeds(folder: Path) -> dict[str, Sections]:
    """The result files in ``folder``, one for each processor: file's name -> section -> what was measured."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}


def exactly(rows: list[dict[str, Any]], name: str) -> dict[str, Any] | None:
    """The row of that name, if it was measured."""
    return next((row for row in rows if row["name"] == name), None)


FIRST, FILLED = "DistilledLoader, first pass over the pictures", "DistilledLoader, later passes"
WORKERS = "DistilledDataset, 2 workers, later passes"


def headlines(found: Sections) -> list[tuple[str, str]]:
    """The numbers that README.md has: pairs of a sentence and its number, from one processor's results."""
    lines: list[tuple[str, str]] = []
    for classifier, feed, what in (
        (
            "convnet3",
            FIRST,
            "time to train ConvNet-3 from `DistilledLoader`, against a tensor in memory, the first pass",
        ),
        ("convnet3", FILLED, "the same, once each picture was shown"),
        ("convnet3", "DistilledLoader, noise", "the same from noise, all pictures new"),
        ("convnet3", "DistilledLoader, noise, `refresh=0.1`, `ahead=2`", "the same from noise, a tenth of them new"),
        ("resnet18", FIRST, "time to train ResNet-18 from `DistilledLoader`, the first pass"),
    ):
        row = exactly(found["training"][classifier], feed) if "training" in found else None
        if row is not None:
            lines.append((what, span(row["time"], "x")))
    if "generator" in found:
        row = exactly(found["generator"]["rows"], "`cifar10`")
        what = "pictures a second of `cifar10`'s decoder, against the paper's generator"
        lines += [(what, span(row["ratio"], "x"))] if row is not None else []
    if "distilling" in found:
        row = named(found["distilling"]["matching"], "preset `default`")
        what = "matching steps a second of `distill()`, against the original's way"
        lines.append((what, span(row["ratio"], "x")))
    return lines


def summary(found: Sections, accuracies: Accuracies) -> list[tuple[str, str]]:
    """What a reader wants to know first: pairs of a sentence and its number, from one processor's results."""
    lines: list[tuple[str, str]] = []
    if "generator" in found:
        for row in found["generator"]["rows"]:
            if row.get("source") in ("cifar10", "cifar10_noise"):
                beside = f"{row['name']} (accuracy at ipc 10: {accuracies.get(row['source'], 'unmeasured')})"
                what = f"{beside} against the paper's generator, images a second"
                lines.append((what, span(row["ratio"], "x")))
    for classifier, name in (("resnet18", "ResNet-18"), ("convnet3", "ConvNet-3")):
        rows = found["training"][classifier] if "training" in found else []
        for row in rows:
            if row["name"].startswith("DistilledLoader") and "ahead" not in row["name"]:
                what = f"time to train {name} from {row['name']}, against a tensor in memory"
                lines.append((what, span(row["time"], "x")))
            elif row["name"] == WORKERS and "beside" in row:
                what = f"time to train {name} from {row['name']}, against CIFAR10 in the same"
                lines.append((what, span(row["beside"], "x")))
    if "loader" in found:
        for row in found["loader"]["rows"]:
            if row["name"] in (FIRST, FILLED, WORKERS):
                what = (
                    f"{row['name']}, against torchvision's `CIFAR10` in a `DataLoader` with 2 workers, images a second"
                )
                lines.append((what, span(row["ratio"], "x")))
    if "distilling" in found:
        rows = found["distilling"]["matching"]
        for start, what in (
            ("preset `default`", "a matching step of `default` against one in the original's way, the same pairs"),
            ("preset `paper`", "one of `paper`, the same networks too"),
        ):
            lines.append((what, span(named(rows, start)["ratio"], "x")))
    if "start" in found:
        for row in found["start"]["rows"][1:]:
            what = "`import dim_data`, beyond torch's own" if row["name"].startswith("import") else row["name"]
            lines.append((what, span(row["seconds"], " s")))
    return lines


def facts(section: dict[str, Any]) -> str:
    """Command, machine and versions of one section."""
    versions = section["versions"]
    return (
        f"`{section['command']}`, {section['rounds']} rounds, {section['hardware']}, "
        f"torch {versions['torch']}, Python {versions['python']}."
    )


def _columns(lines: dict[str, list[tuple[str, str]]], devices: dict[str, Sections]) -> str:
    """A column for each processor, named as its sections name it; they are never compared."""
    whats = list(dict.fromkeys(what for own in lines.values() for what, _ in own))
    rows = [[what, *(dict(own).get(what, "") for own in lines.values())] for what in whats]
    heads = [next(iter(found.values()))["hardware"] for found in devices.values()]
    versions = sorted(
        {s["versions"]["torch"] for found in devices.values() for name, s in found.items() if name in RENDERERS}
    )
    return f"{table(['median (range)', *heads], rows)}\n\nMeasured with torch {', '.join(versions)}."


def render_headlines(devices: dict[str, Sections]) -> str:
    """The table of README.md."""
    return _columns({device: headlines(found) for device, found in devices.items()}, devices) if devices else ""


def render_summary(devices: dict[str, Sections], accuracies: Accuracies) -> str:
    """The short table of benchmarks/README.md."""
    lines = {device: summary(found, accuracies) for device, found in devices.items()}
    return _columns(lines, devices) if devices else ""


def render_details(devices: dict[str, Sections], accuracies: Accuracies) -> str:
    """The tables of benchmarks/README.md: every section of every processor."""
    parts = []
    for found in devices.values():
        for name, renderer in RENDERERS.items():
            if name in found:
                parts += [
                    f"**{TITLES[name]}** ({found[name]['hardware']})",
                    renderer(found, accuracies),
                    facts(found[name]),
                ]
    return "\n\n".join(parts)


def _loader(found: Sections, accuracies: Accuracies) -> str:
    section = found["loader"]
    rows = [
        [row["name"], f"{row['rate'][0]:,.0f}", span(row["ratio"], "x"), times(row["to_forward"])]
        for row in section["rows"]
    ]
    return table(
        ["batches of 128", "images/s", f"against {section['reference']}", "against the bare forward"],
        rows,
    )


def _training(found: Sections, accuracies: Accuracies) -> str:
    section = found["training"]
    parts = []
    for classifier in ("convnet3", "resnet18"):
        rows = [
            [
                row["name"],
                f"{row['seconds_per_10k']:,.3g}",
                *(span(row[n], "x") for n in ("time", "beside") if n in row),
            ]
            for row in section[classifier]
        ]
        heads = [f"{classifier} fed by", "s per 10,000 images", f"time against {section['reference']}"]
        heads += [f"against {section['beside']}"] if "beside" in section else []
        parts.append(table(heads, rows))
    return "\n\n".join(parts)


def _generator(found: Sections, accuracies: Accuracies) -> str:
    section = found["generator"]
    rows = []
    for row in section["rows"]:
        size = f"{row['bytes'] / 1e6:.2f}" if "bytes" in row else ""
        share = f"{row['of_peak']:.0%}" if "of_peak" in row else ""
        rows.append(
            [
                row["name"],
                f"{row['rate'][0]:,.0f}",
                span(row["ratio"], "x"),
                str(row.get("gflop", "")),
                share,
                accuracies.get(row.get("source"), ""),
                size,
            ]
        )
    heads = ["generator", "images/s", "against the paper's", "GFLOP an image"]
    heads += [f"of {section['peak_tflops']} TFLOP/s", "accuracy, ipc 10", "MB"]
    return table(heads, rows)


def _distilling(found: Sections, accuracies: Accuracies) -> str:
    section = found["distilling"]
    parts, counts = [], found.get("arithmetic", {})
    for stage in ("adversarial", "matching"):
        rows = []
        for row in section[stage]:
            numbers = [f"{row['seconds_per_step']:,.3g}", span(row["ratio"], "x")]
            if stage in counts:
                gflop = counts[stage][row["name"]]
                numbers += [f"{gflop:,.0f}", f"{gflop / 1e3 / row['seconds_per_step']:.3f}"]
            rows.append([row["name"], *numbers])
        heads = [f"{stage} step, {section['batch']} images", "seconds", "speed"]
        parts.append(table(heads + ["GFLOP", "TFLOP/s"] * (stage in counts), rows))
    if counts and "generator" in found:
        peak = found["generator"]["peak_tflops"]
        first, same = section["matching"][0], named(section["matching"], "preset `paper`")
        least = counts["matching"][same["name"]] / 1e3 / peak
        parts.append(
            f"A large matrix product reaches {peak} TFLOP/s here in the number format of ours. A matching step of "
            f"`paper` at that rate would take {least:.3g} s: equal work cannot go more than "
            f"{times(first['seconds_per_step'] / least)} as fast as the original's way."
        )
    rows = [
        [row["name"], f"{row['hours']:,.3g}", accuracies.get(row.get("source"), "not run to its end")]
        for row in section["whole"]
    ]
    parts.append(table(["a whole run", "hours", "ConvNet-3, ipc 10"], rows))
    return "\n\n".join(parts)


def _growth(found: Sections, accuracies: Accuracies) -> str:
    section = found["growth"]
    rows = []
    for r in section["rows"]:
        numbers = [f"{r['seconds']:,.3g}", f"{r['rate']:,.0f}", f"{r['peak_mb']:,}", f"{r['grown_mb']:.1f}"]
        rows.append([f"{r['images']:,}", str(r["classes"]), str(r["pixels"]), *numbers])
    heads = ["images in the epoch", "classes", "pixels", "seconds", "images/s", "peak MB", "of it grown after a batch"]
    return table(heads, rows)


def _start(found: Sections, accuracies: Accuracies) -> str:
    return table(["from a fresh process", "seconds"], [[r["name"], span(r["seconds"])] for r in found["start"]["rows"]])


def _profile(found: Sections, accuracies: Accuracies) -> str:
    section = found["profile"]
    rows = [[f"`{r['operator']}`", f"{r['share']:.1%}", str(r["calls"])] for r in section["rows"]]
    text = f"ConvNet-3 trained from `DistilledLoader`: {section['synthesis']:.0%} of the time is synthesis."
    return text + "\n\n" + table(["operator, synthesis and training together", "share", "calls"], rows)


RENDERERS = {
    "loader": _loader,
    "training": _training,
    "generator": _generator,
    "distilling": _distilling,
    "growth": _growth,
    "start": _start,
    "profile": _profile,
}
