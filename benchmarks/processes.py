"""How much several processes share: two ranks with one thread each against one with two, the same work.

    python benchmarks/processes.py                  # under six minutes on two cores
    python benchmarks/processes.py --processes 8 --device cuda    # on a machine with eight GPUs

No data is needed. Each kind of job is started by torchrun, in turn, so that both see the same machine. Of the stages of
``distill()`` it records the median seconds of a step and the bytes that a rank sends in one; of encoding and of
``evaluate(seeds=2)`` the seconds of all. Written to ``timing/processes.json``, which ``report.py`` renders.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from options import HelpFormatter
from scale import MadeImages

RESULT = Path(__file__).parent / "timing" / "processes.json"


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """What one job needs, as its first rank sees it."""
    import torch

    from accuracy.machines import hardware
    from dim_data.distillation import DistillConfig, StageStep, distill
    from dim_data.distillation.reconstruction import Encoder, encode_images
    from dim_data.images import load_real
    from dim_data.networks import Ranks, joined, own_device
    from dim_data.protocol import evaluate

    found: dict[str, Any] = {}
    with joined(options.device):
        ranks, device = Ranks.present(), own_device(options.device)
        data = load_real(MadeImages(options.images, options.size, 10))
        train, test = data.split(0.1)
        seen: dict[str, list[tuple[float, int]]] = {}

        def note(step: StageStep) -> None:
            seen.setdefault(step.stage, []).append((time.perf_counter(), ranks.bytes_sent))

        config = DistillConfig.from_dict(
            {
                "pool": {"ages": [options.steps] * options.members},
                "reconstruction": {"steps": options.steps},
                "matching": {"steps": options.steps},
                "selection": {"checkpoints": 0},
                "refining": {"looks": 2, "batch_size": 32},
                "max_codes": 32 * options.steps,
                "options": options.options,
            }
        )
        generator = distill(train, config=config, out=Path(options.folder) / "run", device=device, on_step=note)
        for stage, marks in seen.items():
            # A step's share of as many as there are ranks, since ranks train members, and refine batches, side by side.
            some = options.processes
            pairs = list(zip(marks, marks[some:], strict=False))
            found[stage] = {
                name: statistics.median(later[at] - early[at] for early, later in pairs) / some
                for at, name in enumerate(("seconds", "bytes"))
            }
        encoder = Encoder(data.spec, generator.decoder.latent_shape).to(device)
        for _ in range(2):  # the first warms up
            started, sent = time.perf_counter(), ranks.bytes_sent
            for _ in encode_images(encoder, train.images, device, ranks):
                pass
            seconds = time.perf_counter() - started
        found["encoding"] = {"seconds": seconds, "bytes": ranks.bytes_sent - sent}
        started = time.perf_counter()
        evaluate(generator, test, ipc=10, epochs=options.epochs, seeds=(0, 1), device=device)
        found["evaluate"] = {"seconds": time.perf_counter() - started, "bytes": 0}
        found["gradients"] = sum(p.numel() for net in (generator.decoder, encoder) for p in net.parameters()) * 4
        found["machine"] = {"hardware": hardware(device), "torch": torch.__version__}
        if ranks.first:
            Path(options.folder, "found.json").write_text(json.dumps(found), encoding="utf-8")
    return found


def run_job(options: argparse.Namespace, processes: int, threads: int) -> dict[str, Any]:
    """What a job of so many processes needs."""
    names = ("images", "size", "steps", "members", "epochs", "options", "device", "processes")
    with tempfile.TemporaryDirectory() as folder:
        told = {**{name: getattr(options, name) for name in names}, "folder": folder}
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        command += [__file__, "--part", json.dumps(told)]
        subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": str(threads)}, check=True)
        found: dict[str, Any] = json.loads(Path(folder, "found.json").read_text(encoding="utf-8"))
        return found


def read_arguments(words: Sequence[str]) -> argparse.Namespace:
    """What to measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument(
        "--processes", type=int, default=2, help="ranks, and threads of the one that they are held against"
    )
    parser.add_argument("--rounds", type=int, default=2, help="each kind of job so often, in turn")
    parser.add_argument("--images", type=int, default=4000, help="images that are made")
    parser.add_argument("--size", type=int, default=32, help="pixels of a side")
    parser.add_argument("--steps", type=int, default=24, help="steps of each stage")
    parser.add_argument("--members", type=int, default=2, help="members of the pool")
    parser.add_argument("--epochs", type=int, default=30, help="epochs of evaluate()")
    parser.add_argument(
        "--options", type=json.loads, default={}, help="options of the decoder, as JSON (default: its own)"
    )
    parser.add_argument("--device", help="default: CUDA where there is one")
    parser.add_argument("--out", type=Path, default=RESULT, help="a file (default: timing/processes.json)")
    parser.add_argument("--part", type=json.loads, help=argparse.SUPPRESS)
    return parser.parse_args(words)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, write and return what was measured."""
    options = read_arguments(sys.argv[1:] if argv is None else argv)
    if options.part:
        return measure(argparse.Namespace(**options.part))
    jobs = {"one": (1, options.processes), "several": (options.processes, 1)}
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in jobs}
    for _ in range(options.rounds):
        for name, (processes, threads) in jobs.items():
            rounds[name].append(run_job(options, processes, threads))
    names = ("processes", "rounds", "images", "size", "steps", "members", "epochs")
    result: dict[str, Any] = {name: getattr(options, name) for name in names}
    result["command"] = f"python benchmarks/processes.py {' '.join(sys.argv[1:] if argv is None else argv)}".strip()
    result["machine"] = rounds["one"][0]["machine"]  # its threads are as many as those of all ranks
    result["gradients"] = rounds["several"][0]["gradients"]
    stages = [name for name in rounds["one"][0] if name not in ("machine", "gradients")]
    result["stages"] = {
        stage: {
            **{name: [found[stage]["seconds"] for found in rounds[name]] for name in jobs},
            "bytes": rounds["several"][0][stage]["bytes"],
        }
        for stage in stages
    }
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return result


if __name__ == "__main__":
    main()
