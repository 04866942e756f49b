"""The result of ``processes.py`` as Markdown: what ranks gain, and the network that many would need."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from timing.tables import table, times

RESULT = Path(__file__).with_name("processes.json")
NAMES = {
    "pool": "a step of the pool, one member a rank",
    "reconstruction": "a step of reconstruction, the batch shared",
    "matching": "a step of matching, the batch shared",
    "refining": "a batch of refining, one a rank",
    "encoding": "encoding all images",
    "evaluate": "`evaluate(seeds=2)`, one seed a rank",
}
STEPS = (0.005, 0.02, 0.1)
"""Seconds that a step may take on one GPU, for what is only calculated."""
GPUS = (8, 64)
SHARE = 0.1


def bandwidth(sent: float, ranks: int, seconds: float) -> float:
    """Bytes a second each way of each rank, for sums of ``sent`` bytes to take ``seconds``, in a ring."""
    return 2 * (ranks - 1) / ranks * sent / seconds


def render_processes(path: Path = RESULT) -> str:
    """What was measured, and what follows for more ranks."""
    if not path.exists():
        return "Not measured yet."
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    rows = []
    for stage, name in NAMES.items():
        row = found["stages"][stage]
        one, several = statistics.median(row["one"]), statistics.median(row["several"])
        gains = sorted(a / b for a, b in zip(row["one"], row["several"], strict=True))
        sent = f"{row['bytes'] / 1e6:,.2f}" if row["bytes"] else ""
        spread = f" ({gains[0]:.2f} to {gains[-1]:.2f})"
        rows.append([name, f"{one:,.3g}", f"{several:,.3g}", times(one / several) + spread, sent])
    many, machine = found["processes"], found["machine"]
    measured = table(
        ["", f"1 rank, {many} threads: s", f"{many} ranks, 1 thread: s", "gain (range)", "MB a rank sends"], rows
    )
    sent = found["stages"]["matching"]["bytes"]
    needs = table(
        ["a matching step on one GPU", *(f"{ranks} GPUs: GB/s" for ranks in GPUS)],
        [
            [
                f"{step * 1e3:g} ms",
                *(f"{bandwidth(sent, ranks, SHARE * step / ranks) / 1e9:,.2f}" for ranks in GPUS),
            ]
            for step in STEPS
        ],
    )
    return (
        f"{measured}\n\nMedians of {found['rounds']} rounds, in turn. {found['images']:,} made images of "
        f"{found['size']} pixels. `{found['command']}`; {machine['hardware']}; torch {machine['torch']}.\n\n"
        f"Calculated: the network each GPU needs each way, so that sums of {sent / 1e6:.2f} MB a step in a ring take "
        f"{SHARE:.0%} of a step, where a batch is shared and a step's work shrinks with the number of GPUs.\n\n{needs}"
    )
