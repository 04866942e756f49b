"""The results of ``scale.py`` as Markdown: what grows with images, classes and pixels, and what does not."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from timing.tables import table

RESULT = Path(__file__).with_name("scale.json")
STEPS = ("fetching", "pool", "reconstruction", "matching", "refining", "training on images")


def render_scale(path: Path = RESULT) -> str:
    """All that was measured."""
    if not path.exists():
        return "Not measured yet."
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    found.sort(key=lambda one: (one["images"], one["size"], one["codes"]))
    sets, banks = [one for one in found if one["images"]], [one for one in found if one["codes"]]
    parts = [_sets(sets), _steps(sets), _banks(banks)]
    commands = [f"`{one['command']}` ({one['machine']['hardware']}, torch {one['machine']['torch']})" for one in found]
    return "\n\n".join([*(part for part in parts if part), f"Measured by {'; '.join(commands)}."])


def _name(one: dict[str, Any]) -> str:
    return f"{one['images']:,} of {one['size']} pixels, {one['classes']:,} classes"


def _most(rounds: list[dict[str, Any]], what: str) -> float:
    """MB, over all stages of all rounds."""
    return max(stage[what] for one in rounds for stage in one["stages"].values())


def _median(rounds: list[dict[str, Any]], stage: str, what: str) -> float:
    return statistics.median(one["stages"][stage][what] for one in rounds)


def _sets(sets: list[dict[str, Any]]) -> str:
    """Memory, and what is done once."""
    rows = []
    for one in sets:
        row = [_name(one), f"{one['pixels_mb']:,.0f}"]
        for kind in ("mapped", "memory"):
            rounds = one.get(kind)
            row += [f"{_most(rounds, what):,.0f}" if rounds else "" for what in ("anonymous_mb", "peak_mb")]
        row += [f"{one['mapped'][0]['stages'][stage]['seconds']:,.1f}" for stage in ("reading", "fingerprint")]
        rows.append(row)
    heads = ["images", "MB of pixels", "mapped: MB of its own", "MB with pages of files", "in memory: MB of its own"]
    heads += ["MB with pages of files", "first reading: s", "fingerprint: s"]
    return table(heads, rows) if rows else ""


def _steps(sets: list[dict[str, Any]]) -> str:
    """Milliseconds of a step, mapped, and against memory."""
    rows = []
    for one in sets:
        row = [_name(one)]
        for stage in STEPS:
            if stage not in one["mapped"][0]["stages"]:  # an earlier measurement
                row.append("")
                continue
            mapped = _median(one["mapped"], stage, "seconds_per_step")
            beside = ""
            if one.get("memory"):
                ratios = sorted(
                    a["stages"][stage]["seconds_per_step"] / b["stages"][stage]["seconds_per_step"]
                    for a, b in zip(one["mapped"], one["memory"], strict=True)
                )
                beside = f" ({statistics.median(ratios):.2f}x memory, {ratios[0]:.2f} to {ratios[-1]:.2f})"
            row.append(f"{1e3 * mapped:,.{0 if mapped > 0.01 else 2}f}{beside}")
        rows.append(row)
    return table(["a step, ms", "64 images fetched", *STEPS[1:]], rows) if rows else ""


def _banks(banks: list[dict[str, Any]]) -> str:
    rows = []
    for one in banks:
        stages = one["bank"]["stages"]
        rows.append(
            [
                f"{one['codes']:,} codes, {one['bank']['bytes'] / 1e6:,.0f} MB",
                *(f"{stages[name]['seconds']:,.2f}" for name in ("loading", "first batch")),
                f"{stages['import']['anonymous_mb']:,.0f}",
                f"{max(stage['anonymous_mb'] for stage in stages.values()):,.0f}",
            ]
        )
    heads = ["a bank of", "loading: s", "first batch: s", "MB of its own after `import`", "most MB of its own"]
    return table(heads, rows) if rows else ""
