"""What all sections share: contestants that take turns, and processes of their own."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dim_data import Generator
from dim_data.images import KNOWN_SPECS

CIFAR = KNOWN_SPECS["cifar10"]

Work = Callable[[], int]
"""Does a piece of work; returns how many images it was."""


@dataclass(frozen=True)
class Bench:
    """What all sections share.

    Args:
        device: Where networks run.
        seconds: How long a contestant is timed in a round, at least.
        rounds: Turns of each contestant.
        scale: Multiplies the sizes of epochs; below 1 for a trial.
        original: A checkout of the paper's code, or ``None``.
        batch: Images a batch of what loads, trains or paints.
        step_batch: Images a step of distilling; the paper's matching stage takes 64.
    """

    device: torch.device
    seconds: float
    rounds: int
    scale: float = 1.0
    original: Path | None = None
    batch: int = 128
    step_batch: int = 64

    def wait(self) -> None:
        """Until the device is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def compete(self, contestants: dict[str, Work], reference: str, beside: str | None = None) -> list[dict[str, Any]]:
        """Images a second of each contestant, and its ratios to ``reference`` and ``beside`` in the same round.

        Each does its work once before the clock runs: compilation, workers and caches are warm.
        """
        for work in contestants.values():
            work()
        rates: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(self.rounds):
            for name, work in contestants.items():
                self.wait()
                done, started = 0, time.perf_counter()
                while not done or time.perf_counter() - started < self.seconds:
                    done += work()
                    self.wait()
                rates[name].append(done / (time.perf_counter() - started))
        rows = []
        for name, values in rates.items():
            ratios = [a / b for a, b in zip(values, rates[reference], strict=True)]
            rows.append({"name": name, "rate": spread(values), "ratio": spread(ratios)})
            if beside is not None:
                rows[-1]["beside"] = spread([a / b for a, b in zip(values, rates[beside], strict=True)])
        return rows

    def size(self, count: int) -> int:
        """``count`` scaled, a multiple of ten."""
        return max(10, round(count * self.scale / 10) * 10)


def spread(values: list[float]) -> list[float]:
    """Median, minimum and maximum, to four digits."""
    return [float(f"{x:.4g}") for x in (statistics.median(values), min(values), max(values))]


def load(name: str, device: torch.device) -> Generator:
    """A bundled generator on ``device``."""
    return Generator.from_pretrained(name, device=device)


def in_process(code: str, *arguments: Any) -> Any:
    """What Python code prints as JSON, run in a process of its own."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(f"a measuring process failed: {run.stderr[-2000:]}")
    return json.loads(run.stdout.splitlines()[-1])
