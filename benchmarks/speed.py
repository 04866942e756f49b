"""How fast: everything side by side in one run, as ratios, written to a file of each processor in ``timing/results``.

    python benchmarks/speed.py                                   # all sections, about 25 minutes on 2 cores
    python benchmarks/speed.py --using                           # those of loading and training: 8 minutes
    python benchmarks/speed.py --sections loader start           # some; the others stay as they are in the file
    python benchmarks/speed.py --sections generator --original PATH     # PATH: a checkout of the DiM paper's code

No data is needed: speed does not depend on what a picture shows, so the real files' stand-in is random pixels. Other
loaders (Hugging Face ``datasets``, ``spdl``) take part where they are installed. The
contestants of a section take turns, round after round, and ratios are taken within a round, so that a machine
which is slower for a while is so for all of them. Run it on an idle machine; ``report.py`` renders the tables.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from accuracy.machines import hardware
from dim_data import __version__
from dim_data.format import write_json
from dim_data.networks import resolve_device
from options import HelpFormatter
from timing.contest import Bench
from timing.making import measure_arithmetic, measure_distilling, measure_generator
from timing.using import measure_growth, measure_loader, measure_profile, measure_start, measure_training

RESULTS = Path(__file__).parent / "timing" / "results"

SECTIONS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "loader": measure_loader,
    "training": measure_training,
    "generator": measure_generator,
    "distilling": measure_distilling,
    "arithmetic": measure_arithmetic,
    "growth": measure_growth,
    "start": measure_start,
    "profile": measure_profile,
}


USING = ("loader", "training", "generator", "start", "profile")


def read_arguments(words: Sequence[str]) -> argparse.Namespace:
    """What to measure, and how long."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--sections", nargs="+", choices=list(SECTIONS), default=list(SECTIONS), help="default: all")
    parser.add_argument("--using", dest="sections", action="store_const", const=list(USING), help="the use half's")
    parser.add_argument("--device", help="default: CUDA where there is one")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each contestant in each round, at least")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contestant")
    parser.add_argument("--scale", type=float, default=1.0, help="of the epochs' sizes; below 1 for a trial")
    parser.add_argument("--original", type=Path, help="a checkout of the DiM paper's code, timed in its section")
    parser.add_argument("--out", type=Path, default=RESULTS, help="a folder (default: timing/results)")
    return parser.parse_args(words)


def main(argv: Sequence[str] | None = None) -> Path:
    """Measure the sections asked for and return the path of the result file."""
    words = sys.argv[1:] if argv is None else list(argv)
    args = read_arguments(words)
    device = resolve_device(args.device)
    bench = Bench(device, args.seconds, args.rounds, args.scale, args.original)
    name = hardware(device).lower().replace("torch.", "")
    path = args.out / f"{re.sub('[^a-z0-9]+', '-', name)}.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    command = shlex.join(["python", "benchmarks/speed.py", *words]).replace(str(args.original), "PATH")
    for name in args.sections:
        result = SECTIONS[name](bench)
        result |= {
            "command": command,
            "rounds": args.rounds,
            "hardware": hardware(device),
            "versions": {"dim_data": __version__, "torch": torch.__version__, "python": platform.python_version()},
        }
        found[name] = result
        args.out.mkdir(parents=True, exist_ok=True)
        write_json(path, {k: found[k] for k in SECTIONS if k in found})
        print(f"{name}: written to {path}", flush=True)
    return path


if __name__ == "__main__":
    main()
