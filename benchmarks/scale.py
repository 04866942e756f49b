"""How much: memory and time of what is too large for memory, added to ``timing/scale.json``.

    python benchmarks/scale.py                                              # 100,000 images of 64 pixels
    python benchmarks/scale.py --images 1000000 --classes 1000 --no-memory  # 12.3 GB of pixels
    python benchmarks/scale.py --images 0 --codes 5000000                   # a bank alone

No data is needed: images are made, one colour and one pattern for each class under noise, so that a classifier can
learn them. Each set is distilled twice a round, each time in a process of its own: once mapped from a file, once in
memory. Of each stage it records the steps' median time, and the most memory that the process had resident in it: all,
and without pages of files, which the system takes back when it needs them. A measurement takes the place of one of the
same sizes; ``report.py`` renders them.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from options import HelpFormatter

RESULT = Path(__file__).parent / "timing" / "scale.json"
BATCHES = 300
"""Of 64 images, fetched to see what that takes."""
SIZES = ("images", "size", "classes", "codes")
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class MadeImages:
    """A map-style dataset of images that are made when they are asked for: the same ones each time.

    Args:
        count: Images.
        size: Pixels of a side.
        classes: Classes, as many images of each.
    """

    def __init__(self, count: int, size: int, classes: int) -> None:
        self.count, self.size = count, size
        self.classes = [str(label) for label in range(classes)]
        coarse = np.random.default_rng(0).integers(40, 216, (classes, 4, 4, 3), np.uint8)
        self._places = np.arange(size) * 4 // size
        self._coarse = coarse
        self._noise = np.random.default_rng(1).integers(0, 40, (64, size, size, 3), np.uint8)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[np.ndarray[Any, Any], int]:
        if not 0 <= index < self.count:
            raise IndexError(index)
        label = index % len(self.classes)
        places = np.roll(self._places, index * 7919 % self.size)
        picture = self._coarse[label][places][:, places]
        return picture + self._noise[index * 31 % 64], label


class Watch:
    """Times of steps, and peaks of memory, by stage."""

    def __init__(self) -> None:
        self.stages: dict[str, dict[str, Any]] = {}
        self._at, self._stage, self._times = time.perf_counter(), "", list[float]()
        self._reset()

    def _reset(self) -> None:
        if CLEAR.exists():
            CLEAR.write_text("5")  # the peak begins anew
        self._anonymous = 0.0

    def look(self, stage: str) -> None:
        """Note a step of a stage."""
        now = time.perf_counter()
        if stage != self._stage:
            self.close()
            self._stage = stage
        self._times.append(now - self._at)
        self._anonymous = max(self._anonymous, status("RssAnon"))
        self._at = time.perf_counter()

    def close(self) -> None:
        """Note the end of a stage."""
        if self._stage:
            times = self._times[len(self._times) // 4 :]  # the first ones warm up
            self.stages[self._stage] = {
                "steps": len(self._times),
                "seconds": round(sum(self._times), 3),
                "seconds_per_step": round(statistics.median(times), 5),
                "peak_mb": status("VmHWM"),
                "anonymous_mb": max(self._anonymous, status("RssAnon")),
            }
        self._times, self._stage = [], ""
        self._reset()

    def once(self, stage: str, work: Callable[[], Any]) -> Any:
        """Note a stage that is one step."""
        self._at = time.perf_counter()
        result = work()
        self.look(stage)
        self.close()
        return result


def status(name: str) -> float:
    """A line of the process's status, in MB; NaN where there is no such thing."""
    found = re.search(rf"^{name}:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE) if STATUS.exists() else None
    return round(int(found[1]) / 1e3, 1) if found else float("nan")


def measure_images(options: argparse.Namespace) -> dict[str, Any]:
    """Read and distil made images, and measure what came of it, in this process."""
    import torch

    from dim_data.distillation import DistillConfig, distill
    from dim_data.images import ImageRows, load_real
    from dim_data.protocol import evaluate

    watch, steps = Watch(), options.steps
    made = MadeImages(options.images, options.size, options.classes)
    data = watch.once("reading", lambda: load_real(made))
    watch.once("fingerprint", data.fingerprint)
    train, test = watch.once("split", lambda: data.split(0.02))
    rng = torch.Generator().manual_seed(0)
    watch.look("start")
    for _ in range(BATCHES):
        train.images[torch.randint(len(train), (64,), generator=rng)]
        watch.look("fetching")
    watch.close()
    config = DistillConfig.from_dict(
        {
            "pool": {"ages": [steps]},
            "reconstruction": {"steps": steps},
            "matching": {"steps": steps},
            "selection": {"checkpoints": 0},
            "refining": {"looks": 1},
            "max_codes": options.kept or options.images,
            "options": options.options,
        }
    )
    with tempfile.TemporaryDirectory() as out:
        watch.look("start")
        generator = distill(
            train, config=config, out=Path(out) / "run", device=options.device, on_step=lambda s: watch.look(s.stage)
        )
        watch.look("end")
    watch.close()
    for name, source in (("training on codes", generator), ("training on images", train)):
        shown = {"ipc": 1, "epochs": max(1, steps * 64 // options.classes), "seeds": (0,), "device": options.device}
        test_part = test.subset(test.labels.argsort(stable=True)[:: max(1, len(test) // 1000)])
        evaluate(source, test_part, **shown, on_step=lambda s, name=name: watch.look(name))
        watch.close()
    return {"mapped": isinstance(data.images, ImageRows), "stages": watch.stages}


def measure_bank(options: argparse.Namespace) -> dict[str, Any]:
    """Load a generator with many codes, and take batches of it, in this process."""
    import torch

    from dim_data import DistilledLoader, Generator

    watch = Watch()
    watch.once("import", lambda: torch.zeros(1))
    generator = watch.once("loading", lambda: Generator.from_pretrained(options.bank))
    ipc = 128 * (options.steps + 1) // options.classes + 1
    loader = DistilledLoader(generator, 128, ipc=ipc, device=options.device)
    batches = iter(loader)
    watch.once("first batch", lambda: next(batches))
    for _, _ in zip(range(options.steps), batches, strict=False):
        watch.look("batches")
    watch.close()
    return {"bytes": generator.bank.codes.nbytes, "stages": watch.stages}


def make_bank(options: argparse.Namespace, folder: Path) -> None:
    """Save a generator with as many random codes."""
    import torch

    from dim_data import Generator, GeneratorConfig, ImageSpec

    names = tuple(str(label) for label in range(options.classes))
    spec = ImageSpec("made", 3, options.size, names, (0.5,) * 3, (0.25,) * 3)
    config = GeneratorConfig(spec, "compact", "codes", options=options.options, codes=options.codes)
    generator, rng = Generator(config), torch.Generator().manual_seed(0)
    for part in generator.bank.codes.split(1 << 16):
        part.random_(0, 256, generator=rng)
    counts = torch.full((options.classes,), options.codes // options.classes)
    counts[0] += options.codes - int(counts.sum())
    generator.bank.counts.copy_(counts)
    generator.save_pretrained(folder)


def _child(options: argparse.Namespace, part: str, map_above: int, cache: Path, bank: Path | None = None) -> Any:
    """What a measurement says, made in a process of its own."""
    words = {name: value for name, value in vars(options).items() if name in ("images", "size", "classes", "steps")}
    more = {"kept": options.kept, "device": options.device, "options": options.options, "bank": bank and str(bank)}
    environment = {**os.environ, "DIM_DATA_CACHE": str(cache), "DIM_DATA_MAP_ABOVE": str(map_above)}
    command = [sys.executable, __file__, "--part", part, json.dumps({**words, **more})]
    run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(run.stdout)


def read_arguments(words: Sequence[str]) -> argparse.Namespace:
    """What to measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--images", type=int, default=100_000, help="images that are made")
    parser.add_argument("--size", type=int, default=64, help="pixels of a side")
    parser.add_argument("--classes", type=int, default=100, help="of the images, and of the bank")
    parser.add_argument("--steps", type=int, default=100, help="steps of each stage")
    parser.add_argument("--kept", type=int, default=10_000, help="codes to store and refine; 0: one for each image")
    parser.add_argument("--codes", type=int, default=0, help="codes of a bank to load, too (default: 0, none)")
    parser.add_argument(
        "--options", type=json.loads, default={}, help="options of the decoder, as JSON (default: its own)"
    )
    parser.add_argument("--rounds", type=int, default=1, help="measurements of each kind, in turn")
    parser.add_argument("--no-memory", action="store_true", help="measure the mapped set alone")
    parser.add_argument("--device", help="default: CUDA where there is one")
    parser.add_argument("--cache", type=Path, help="a folder with room for the pixels; default: a temporary one")
    parser.add_argument("--out", type=Path, default=RESULT, help="a file (default: timing/scale.json)")
    parser.add_argument("--part", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args(words)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, write and return what was measured."""
    words = sys.argv[1:] if argv is None else argv
    options = read_arguments(words)
    if options.part:
        told = argparse.Namespace(**json.loads(options.part[1]))
        print(json.dumps({"images": measure_images, "bank": measure_bank}[options.part[0]](told)))
        return {}
    import torch

    from accuracy.machines import hardware
    from dim_data.networks import resolve_device

    result: dict[str, Any] = {name: getattr(options, name) for name in SIZES}
    result |= {name: getattr(options, name) for name in ("steps", "kept", "options")}
    # Where the pixels lay is of this machine alone.
    kept = [word for at, word in enumerate(words) if "--cache" not in words[max(0, at - 1) : at + 1]]
    result["command"] = " ".join(["python", "benchmarks/scale.py", *kept])
    result["machine"] = {"hardware": hardware(resolve_device(options.device)), "torch": torch.__version__}
    kinds = {"mapped": 0} if options.no_memory else {"mapped": 0, "memory": 1 << 60}
    with tempfile.TemporaryDirectory(dir=options.cache) as place:
        if options.images:
            result["pixels_mb"] = options.images * 3 * options.size**2 / 1e6
            for _ in range(options.rounds):
                for kind, above in kinds.items():
                    result.setdefault(kind, []).append(_child(options, "images", above, Path(place)))
        if options.codes:
            make_bank(options, Path(place) / "bank")
            result["bank"] = _child(options, "bank", 0, Path(place), Path(place) / "bank")
    known = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else []
    known = [one for one in known if any(one[name] != result[name] for name in SIZES)]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps([*known, result], indent=2) + "\n", encoding="utf-8")
    return result


if __name__ == "__main__":
    main()
