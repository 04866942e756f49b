"""How fast: everything side by side in one run, as ratios, written to ``speed/cpu.json`` or ``speed/gpu.json``.

    python benchmarks/speed.py                                   # all sections, about 20 minutes on 2 cores
    python benchmarks/speed.py --sections loader start           # some; the others stay as they are in the file
    python benchmarks/speed.py --sections generator --original PATH     # PATH: a checkout of the DiM paper's code

No data is needed: speed does not depend on what a picture shows, so the real files' stand-in is random pixels. The
contestants of a section take turns, round after round, and ratios are taken within a round, so that a machine
which is slower for a while is so for all of them. Run it on an idle machine; ``report.py`` renders the tables.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from torchvision import datasets, transforms

from dim_data import DistilledDataset, DistilledLoader, Generator, GeneratorConfig, __version__
from dim_data.adversarial import adversarial_parts, train_adversarial
from dim_data.classifiers import build_classifier
from dim_data.compute import autocast, compiled, fast_dtype, resolve_device
from dim_data.hub import TRAINING_CONFIG, write_atomically
from dim_data.matching import match_images, match_labels
from dim_data.pool import start_pool
from dim_data.presets import PRESETS
from dim_data.real import LabelledImages
from dim_data.reconstruction import reconstruction_parts
from dim_data.specs import KNOWN_SPECS
from dim_data.storage import bundled_names

sys.path.insert(0, str(Path(__file__).parent))
from original import OriginalGenerator, OriginalSteps, draw_noise, load_generator
from reproduce import RESULTS, hardware, weights_path

SPEED = Path(__file__).with_name("speed")
CIFAR = KNOWN_SPECS["cifar10"]
BATCH = 128
STEP_BATCH = 64  # of the paper's matching stage

Work = Callable[[], int]
"""Does a piece of work; returns how many images it was."""


class Bench:
    """What all sections share.

    Args:
        device: Where networks run.
        seconds: How long a contestant is timed in a round, at least.
        rounds: Turns of each contestant.
        scale: Multiplies the sizes of epochs; below 1 for a trial.
        original: A checkout of the paper's code, or ``None``.
    """

    def __init__(
        self, device: torch.device, seconds: float, rounds: int, scale: float = 1.0, original: Path | None = None
    ) -> None:
        self.device, self.seconds, self.rounds, self.scale, self.original = device, seconds, rounds, scale, original

    def wait(self) -> None:
        """Until the device is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def compete(self, contestants: dict[str, Work], reference: str) -> list[dict[str, Any]]:
        """Images a second of each contestant, and its ratio to ``reference`` in the same round.

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
        return rows

    def size(self, count: int) -> int:
        """``count`` scaled, a multiple of ten."""
        return max(10, round(count * self.scale / 10) * 10)


def spread(values: list[float]) -> list[float]:
    """Median, minimum and maximum, to four digits."""
    return [float(f"{x:.4g}") for x in (statistics.median(values), min(values), max(values))]


class RandomCIFAR10(datasets.CIFAR10):
    """torchvision's CIFAR10 with random pixels in place of the downloaded ones: the same work for each item."""

    def __init__(self, count: int, transform: Callable[[Any], Any]) -> None:
        rng = np.random.default_rng(0)
        self.data = rng.integers(0, 256, (count, 32, 32, 3), np.uint8)
        self.targets = [index % 10 for index in range(count)]
        self.transform, self.target_transform = transform, None


def epoch_of(loader: Any) -> Work:
    """One pass over a loader."""
    return lambda: sum(len(labels) for _, labels in loader)


def feeds(bench: Bench, count: int, workers: int) -> dict[str, Any]:
    """What can feed a training loop with ``count`` images an epoch: name -> an iterable of (images, labels)."""
    ipc = count // 10
    options = {"batch_size": BATCH, "num_workers": workers, "persistent_workers": workers > 0}
    to_tensor = transforms.ToTensor()
    cached = DistilledDataset("cifar10", ipc=ipc, transform=to_tensor, cache=True)
    cached_loader = DistilledLoader("cifar10", BATCH, ipc=ipc, device=bench.device, cache=True)
    # The bank is larger than an epoch here: staying in one epoch is what later rounds of the bank are like.
    cached.set_epoch(0)
    memory = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, device=bench.device)
    targets = torch.arange(count, device=bench.device) % 10

    class Pinned:
        def __iter__(self) -> Any:
            cached_loader.set_epoch(0)
            return iter(cached_loader)

    class Memory:
        def __iter__(self) -> Any:
            for index in torch.randperm(count, device=bench.device).split(BATCH):
                yield memory[index].float() / 255, targets[index]

    plural = f"{workers} worker{'s' * (workers != 1)}"
    return {
        "a tensor in memory": Memory(),
        f"CIFAR10 of torchvision, {plural}": DataLoader(RandomCIFAR10(count, to_tensor), shuffle=True, **options),
        f"DistilledDataset, {plural}": DataLoader(
            DistilledDataset("cifar10", ipc=ipc, transform=to_tensor), shuffle=True, **options
        ),
        f"DistilledDataset, {plural}, cache filled": DataLoader(cached, shuffle=True, **options),
        "DistilledLoader": DistilledLoader("cifar10", BATCH, ipc=ipc, device=bench.device),
        "DistilledLoader, cache filled": Pinned(),
    }


def bare_forward(bench: Bench, generator: Generator) -> Work:
    """The decoder alone on one batch of latents, in the fast number format: what all else is compared to."""
    labels = torch.arange(BATCH, device=bench.device) % generator.spec.num_classes
    latents = generator.latents(labels, torch.arange(BATCH, device=bench.device))
    if latents.ndim == 4:
        latents = latents.contiguous(memory_format=torch.channels_last)

    def forward() -> int:
        with torch.no_grad(), autocast(bench.device):
            generator(latents, labels)
        return BATCH

    return forward


def measure_loader(bench: Bench) -> dict[str, Any]:
    """Images a second out of each kind of loader, nothing else running."""
    count = bench.size(2560)
    contestants = {"the bare generator's forward": bare_forward(bench, load("cifar10", bench.device))}
    for workers in (0, 2):
        contestants |= {name: epoch_of(feed) for name, feed in feeds(bench, count, workers).items()}
    reference = next(name for name in contestants if name.startswith("CIFAR10") and "2" in name)
    rows = bench.compete(contestants, reference)
    forward = next(row for row in rows if row["name"].startswith("the bare"))["rate"][0]
    for row in rows:
        row["to_forward"] = float(f"{row['rate'][0] / forward:.4g}")
    return {"reference": reference, "images_per_epoch": count, "batch": BATCH, "rows": rows}


def load(name: str, device: torch.device) -> Generator:
    """A bundled generator on ``device``."""
    return Generator.from_pretrained(name, device=device)


def training_epoch(bench: Bench, classifier: str, feed: Any) -> Work:
    """One epoch of ordinary training, in the fast number format and compiled, fed by ``feed``."""
    torch.manual_seed(0)
    model = build_classifier(classifier, CIFAR).to(bench.device, memory_format=torch.channels_last).train()
    optimiser = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    forward = compiled(model)

    def work() -> int:
        seen = 0
        for images, labels in feed:
            if len(labels) < BATCH:  # another shape would be compiled anew
                continue
            images = CIFAR.normalize(images.to(bench.device)).contiguous(memory_format=torch.channels_last)
            with autocast(bench.device):
                loss = F.cross_entropy(forward(images).float(), labels.to(bench.device))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            seen += len(labels)
        return seen

    return work


def measure_training(bench: Bench) -> dict[str, Any]:
    """Training of two classifiers on each feed; ``time`` is relative to training on a tensor in memory."""
    found = {}
    for classifier, count in (("convnet3", 1280), ("resnet18", 512)):
        count = max(BATCH, bench.size(count) // BATCH * BATCH)
        contestants = {
            name: training_epoch(bench, classifier, feed)
            for name, feed in feeds(bench, -(-count // 10) * 10, workers=2).items()
        }
        rows = bench.compete(contestants, "a tensor in memory")
        for row in rows:
            middle, low, high = row.pop("ratio")
            row["time"] = [float(f"{1 / x:.4g}") for x in (middle, high, low)]
            row["seconds_per_10k"] = float(f"{10_000 / row['rate'][0]:.4g}")
        found[classifier] = rows
    return {"reference": "a tensor in memory", "batch": BATCH, **found}


def matrix_product(bench: Bench) -> Work:
    """A large matrix product in the fast number format; returns millions of operations."""
    size = 2048 if bench.device.type == "cpu" else 8192
    a, b = (torch.randn(size, size, device=bench.device, dtype=fast_dtype(bench.device)) for _ in range(2))

    def work() -> int:
        a @ b
        return 2 * size**3 // 10**6

    return work


def operations(generator: Generator) -> int:
    """Floating-point operations of one image."""
    device = next(generator.parameters()).device
    labels = torch.zeros(1, dtype=torch.int64, device=device)
    latents = generator.latents(labels, labels)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        generator.decoder(latents, labels)
    return counter.get_total_flops()


def accuracy_beside(name: str) -> str:
    """Accuracy of ConvNet-3 at ipc 10 from the committed results, in percent, or a dash."""
    dataset = load(name, torch.device("cpu")).spec.name
    path = RESULTS / f"{dataset}-generator-{name}-convnet3-tuned-ipc10.json"
    if not path.exists():
        return "-"
    values = [100 * run["accuracy"] for run in json.loads(path.read_text())["runs"].values()]
    return f"{statistics.fmean(values):.1f}"


def measure_generator(bench: Bench) -> dict[str, Any]:
    """Images a second of each bundled generator and of the paper's, and how near the arithmetic's limit."""
    labels = torch.arange(BATCH, device=bench.device) % 10
    serials = torch.arange(BATCH, device=bench.device)
    generators = {name: load(name, bench.device) for name in bundled_names()}

    def synthesis(generator: Generator) -> Work:
        def work() -> int:
            generator.synthesize(labels, serials)
            return BATCH

        return work

    def forward(net: torch.nn.Module) -> Work:
        noise = draw_noise(labels, 10)

        def work() -> int:
            with torch.no_grad():
                net(noise)
            return BATCH

        return work

    paper = "the paper's network as its code runs it (float32, eager)"
    contestants = {paper: forward(OriginalGenerator(CIFAR).to(bench.device).train())}
    if bench.original is not None:
        contestants["the paper's own code, from a checkout"] = forward(
            load_generator(bench.original, CIFAR).to(bench.device).train()
        )
    fast_paper = Generator(GeneratorConfig(CIFAR, "dim", "noise")).to(bench.device).eval()
    contestants["the paper's network in this library"] = synthesis(fast_paper)
    contestants |= {f"`{name}`": synthesis(generator) for name, generator in generators.items()}
    product = "a large matrix product"
    rows = bench.compete({**contestants, product: matrix_product(bench)}, paper)
    peak = 1e6 * next(row for row in rows if row["name"] == product)["rate"][0]
    facts = {f"`{name}`": (operations(g), accuracy_beside(name), name) for name, g in generators.items()}
    facts["the paper's network in this library"] = (operations(fast_paper), "-", None)
    kept = []
    for row in rows:
        if row["name"] == product:
            continue
        if row["name"] in facts:
            count, accuracy, name = facts[row["name"]]
            row |= {"gflop": round(count / 1e9, 3), "of_peak": round(count * row["rate"][0] / peak, 3)}
            row["accuracy"] = accuracy
            if name:
                row["bytes"] = weights_path(name).stat().st_size
        kept.append(row)
    return {"reference": paper, "batch": BATCH, "peak_tflops": float(f"{peak / 1e12:.3g}"), "rows": kept}


def random_data(count: int) -> LabelledImages:
    """Random pixels of CIFAR-10's shape."""
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)
    return LabelledImages(images, torch.arange(count) % 10, CIFAR)


def steps_of(loop: Any, batch: int, steps: int = 1) -> Work:
    """Steps of a training loop: as many as it has members of the pool to ask in turn."""

    def work() -> int:
        for _ in range(steps):
            next(loop)
        return batch * steps

    return work


def measure_distilling(bench: Bench) -> dict[str, Any]:
    """Seconds of an adversarial and of a matching step, ours against the original's way."""
    device, paper, default, batch = bench.device, PRESETS["paper"], PRESETS["default"], STEP_BATCH
    data = random_data(max(batch * 17, bench.size(2000))).to(device)
    endless = 10**9

    def ours(config: Any, source: str) -> Generator:
        codes = 10 if source == "codes" else 0
        return Generator(
            GeneratorConfig(CIFAR, config.architecture, source, options=config.options, codes=codes)  # type: ignore[arg-type]
        ).to(device)

    def game() -> Any:
        return adversarial_parts(ours(paper, "noise"), paper.discriminator_width, paper.first_lr, 0.999, 0, device)

    def pool(config: Any) -> Any:
        return start_pool(("convnet3",), len(config.pool_ages), CIFAR, 0, device)

    original = OriginalSteps(LabelledImages(data.images.cpu(), data.labels.cpu(), CIFAR), batch, "convnet3", device)
    common = {"batch_size": batch, "device": device}
    adversarial = bench.compete(
        {
            "the original's way": original.adversarial,
            "preset `paper`": steps_of(train_adversarial(game(), data, endless, augmentation=(), **common), batch),
        },
        "the original's way",
    )
    matching = bench.compete(
        {
            "the original's way": original.matching,
            "preset `paper`: the same networks, batch and 16 steps of a member": steps_of(
                match_labels(
                    game(),
                    pool(paper),
                    data,
                    endless,
                    match_weight=paper.logit_weight,
                    lifetime=endless,
                    aging_steps=paper.pool_aging,
                    augmentation=paper.pool_augmentation,
                    **common,
                ),
                batch,
            ),
            "preset `default`: as many pairs, members kept": steps_of(
                match_images(
                    reconstruction_parts(ours(default, "codes"), default.matching_lr, 0.999, 0, device),
                    pool(default),
                    data,
                    endless,
                    lr=default.matching_lr,
                    logit_weight=default.logit_weight,
                    augmentation=default.augmentation,
                    **common,
                ),
                batch,
                len(default.pool_ages),
            ),
        },
        "the original's way",
    )
    for row in (*adversarial, *matching):
        row["seconds_per_step"] = float(f"{batch / row['rate'][0]:.4g}")
    whole = []
    for name, games, matches in (
        ("the paper's schedule in the original's way, at these rates", adversarial[0], matching[0]),
        ("the same by preset `paper`", adversarial[1], matching[1]),
    ):
        first, second = paper.first_steps * paper.first_batch, paper.matching_steps * paper.matching_batch
        seconds = first / games["rate"][0] + second / matches["rate"][0]
        whole.append({"name": name, "hours": float(f"{seconds / 3600:.3g}"), "accuracy": "not run to its end"})
    made = json.loads(weights_path("cifar10").with_name(TRAINING_CONFIG).read_text())
    took = {"hours": round(made["minutes"] / 60, 2), "accuracy": f"{accuracy_beside('cifar10')} %"}
    whole.append({"name": "`cifar10` as bundled, as it was made", **took})
    return {
        "reference": "the original's way",
        "batch": batch,
        "adversarial": adversarial,
        "matching": matching,
        "whole": whole,
    }


GROWTH = """
import json, re, resource, sys, time
from pathlib import Path
import torch
from dim_data import DistilledLoader, Generator, GeneratorConfig, ImageSpec
images, classes, size, device = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
names = tuple(f"class {i}" for i in range(classes))
spec = ImageSpec("growth", 3, size, names, (0.5,) * 3, (0.5,) * 3)
options = {"width": 8, "top_width": 4, "blocks": 1, "latent_dim": 8}
generator = Generator(GeneratorConfig(spec, "compact", "noise", options))
def peak():
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    status = Path("/proc/self/status")
    if status.exists():  # getrusage() would count the process that started this one too
        return int(re.search(r"VmHWM:\\s+(\\d+) kB", status.read_text())[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
loader = DistilledLoader(generator, 512, ipc=max(1, images // classes), device=device)
batches = iter(loader)
next(batches)
before, started, count = peak(), time.perf_counter(), 0
for _, labels in batches:
    count += len(labels)
if device == "cuda":
    torch.cuda.synchronize()
seconds = time.perf_counter() - started
print(json.dumps({"images": count, "seconds": seconds, "grown_mb": peak() - before, "peak_mb": peak()}))
"""


def in_process(code: str, *arguments: Any) -> Any:
    """What Python code prints as JSON, run in a process of its own."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(f"a measuring process failed: {run.stderr[-2000:]}")
    return json.loads(run.stdout.splitlines()[-1])


def measure_growth(bench: Bench) -> dict[str, Any]:
    """Time and memory of one epoch of ``DistilledLoader``, each in a process of its own, with a narrow decoder.

    Narrow, so that what is measured is the bookkeeping and not the decoder's arithmetic.
    """
    rows = []
    for count, classes, size in (
        (10_000, 10, 32),
        (100_000, 10, 32),
        (1_000_000, 10, 32),
        (100_000, 100, 32),
        (100_000, 1000, 32),
        (10_000, 10, 64),
        (10_000, 10, 128),
    ):
        found = in_process(GROWTH, bench.size(count), classes, size, bench.device.type)
        rows.append(
            {
                "images": bench.size(count),
                "classes": classes,
                "pixels": size,
                "seconds": float(f"{found['seconds']:.4g}"),
                "rate": float(f"{found['images'] / found['seconds']:.4g}"),
                "peak_mb": round(found["peak_mb"]),
                "grown_mb": round(found["grown_mb"], 1),
            }
        )
    return {"batch": 512, "rows": rows}


START = """
import json, sys, time
started = time.perf_counter()
import torch
torch_done = time.perf_counter()
from dim_data import DistilledDataset
imported = time.perf_counter()
dataset = DistilledDataset("cifar10")
built = time.perf_counter()
dataset.__getitems__(range(128))
print(json.dumps([torch_done - started, imported - torch_done, built - imported, time.perf_counter() - built]))
"""


def measure_start(bench: Bench) -> dict[str, Any]:
    """Seconds from nothing to the first batch of 128, each time in a process of its own."""
    runs = [in_process(START) for _ in range(max(2, bench.rounds))][1:]  # the first one warms the disk
    names = ("import torch", "import dim_data after it", "DistilledDataset('cifar10')", "the first batch of 128")
    rows = [{"name": n, "seconds": spread(list(v))} for n, v in zip(names, zip(*runs, strict=True), strict=True)]
    together = spread([run[2] + run[3] for run in runs])
    return {"rows": [*rows, {"name": "from DistilledDataset('cifar10') to the first batch", "seconds": together}]}


def measure_profile(bench: Bench) -> dict[str, Any]:
    """Where the time goes while ConvNet-3 trains on ``DistilledLoader``: the operators that take most of it."""
    feed = feeds(bench, max(BATCH, bench.size(640) // BATCH * BATCH), workers=0)["DistilledLoader"]
    original, marked = feed.generator.synthesize, "synthesis of the pictures"

    def synthesize(*arguments: Any) -> torch.Tensor:
        with torch.profiler.record_function(marked):
            return original(*arguments)

    work = training_epoch(bench, "convnet3", feed)
    work()
    feed.generator.synthesize = synthesize
    with torch.profiler.profile() as profile:
        work()
        bench.wait()
    events = profile.key_averages()
    cuda = bench.device.type == "cuda"

    def cost(event: Any) -> float:
        return event.self_device_time_total if cuda else event.self_cpu_time_total

    total = sum(cost(event) for event in events)
    inside = next(event for event in events if event.key == marked)
    share = (inside.device_time_total if cuda else inside.cpu_time_total) / total
    top = sorted((event for event in events if event.key != marked), key=cost, reverse=True)[:10]
    rows = [{"operator": e.key[:60], "share": round(cost(e) / total, 3), "calls": e.count} for e in top]
    return {"synthesis": round(share, 3), "rows": rows}


SECTIONS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "loader": measure_loader,
    "training": measure_training,
    "generator": measure_generator,
    "distilling": measure_distilling,
    "growth": measure_growth,
    "start": measure_start,
    "profile": measure_profile,
}


def main(argv: list[str] | None = None) -> Path:
    """Measure the sections asked for and return the path of the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--device", help="default: CUDA where there is one")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each contestant in each round, at least")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="of the epochs' sizes; below 1 for a trial")
    parser.add_argument("--original", type=Path, help="a checkout of the DiM paper's code, timed in its section")
    parser.add_argument("--out", type=Path, default=SPEED)
    args = parser.parse_args(argv)
    device = resolve_device(args.device)
    bench = Bench(device, args.seconds, args.rounds, args.scale, args.original)
    path = args.out / f"{'gpu' if device.type == 'cuda' else 'cpu'}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    words = [str(a) for a in (argv if argv is not None else sys.argv[1:])]
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
        text = json.dumps({k: found[k] for k in SECTIONS if k in found}, indent=2) + "\n"
        write_atomically(path, lambda file, text=text: file.write_text(text))
        print(f"{name}: written to {path}", flush=True)
    return path


if __name__ == "__main__":
    main()
