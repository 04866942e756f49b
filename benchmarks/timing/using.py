"""How fast the use half is: loaders, training on them, epochs that grow, the start, and a profile."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from dim_data import DistilledLoader, Generator
from dim_data.networks import autocast, build_classifier, compiled
from timing.contest import CIFAR, Bench, Work, in_process, load, spread
from timing.feeds import FILLED, FIRST, MEMORY, feeds

CIFAR10 = "CIFAR10 of torchvision, 2 workers"


def epoch_of(loader: Any) -> Work:
    """One pass over a loader."""
    return lambda: sum(len(labels) for _, labels in loader)


def bare_forward(bench: Bench, generator: Generator) -> Work:
    """The decoder alone on one batch of latents, in the fast number format: what all else is compared to."""
    labels = torch.arange(bench.batch, device=bench.device) % generator.spec.num_classes
    latents = generator.latents(labels, torch.arange(bench.batch, device=bench.device))
    if latents.ndim == 4:
        latents = latents.contiguous(memory_format=torch.channels_last)

    def forward() -> int:
        with torch.no_grad(), autocast(bench.device):
            generator(latents, labels)
        return bench.batch

    return forward


def measure_loader(bench: Bench) -> dict[str, Any]:
    """Images a second out of each kind of loader, nothing else running."""
    count = bench.size(2560)
    contestants = {"the bare generator's forward": bare_forward(bench, load("cifar10", bench.device))}
    contestants |= {name: epoch_of(feed) for name, feed in feeds(bench, count, workers=(1, 2)).items()}
    reference = CIFAR10
    rows = bench.compete(contestants, reference)
    forward = next(row for row in rows if row["name"].startswith("the bare"))["rate"][0]
    for row in rows:
        row["to_forward"] = float(f"{row['rate'][0] / forward:.4g}")
    return {"reference": reference, "images_per_epoch": count, "batch": bench.batch, "rows": rows}


def training_epoch(bench: Bench, classifier: str, feed: Any) -> Work:
    """One epoch of ordinary training, in the fast number format and compiled, fed by ``feed``."""
    torch.manual_seed(0)
    model = build_classifier(classifier, CIFAR).to(bench.device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    forward = compiled(model)

    def work() -> int:
        seen = 0
        for images, labels in feed:
            if len(labels) < bench.batch:  # another shape would be compiled anew
                continue
            images = CIFAR.normalize(images.to(bench.device)).contiguous(memory_format=torch.channels_last)
            with autocast(bench.device):
                loss = F.cross_entropy(forward(images).float(), labels.to(bench.device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            seen += len(labels)
        return seen

    return work


def measure_training(bench: Bench) -> dict[str, Any]:
    """Training of two classifiers on each feed: ``time`` against a tensor in memory, ``beside`` against CIFAR10."""
    found = {}
    for classifier, count in (("convnet3", 1280), ("resnet18", 256)):
        count = max(bench.batch, bench.size(count) // bench.batch * bench.batch)
        large = classifier == "resnet18"  # beside which no loader takes long
        fed = feeds(bench, -(-count // 10) * 10, workers=(2,), noise=not large)
        contestants = {
            name: training_epoch(bench, classifier, feed)
            for name, feed in fed.items()
            if not large or name in (MEMORY, CIFAR10, f"DistilledLoader, {FIRST}", f"DistilledLoader, {FILLED}")
        }
        rows = bench.compete(contestants, MEMORY, CIFAR10)
        for row in rows:
            for ratio, name in (("ratio", "time"), ("beside", "beside")):
                middle, low, high = row.pop(ratio)
                row[name] = [float(f"{1 / x:.4g}") for x in (middle, high, low)]
            row["seconds_per_10k"] = float(f"{10_000 / row['rate'][0]:.4g}")
        found[classifier] = rows
    return {"reference": MEMORY, "beside": CIFAR10, "batch": bench.batch, **found}


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
from dim_data import DistilledLoader
imported = time.perf_counter()
loader = DistilledLoader(sys.argv[1], 128, device=sys.argv[2])
built = time.perf_counter()
for images, labels in loader:
    images.sum().item()
    break
print(json.dumps([torch_done - started, imported - torch_done, built - imported, time.perf_counter() - built]))
"""


def measure_start(bench: Bench) -> dict[str, Any]:
    """Seconds from nothing to the first batch of 128, each time in a process of its own."""
    rows = []
    for source in ("cifar10", "cifar10_noise"):
        runs = [in_process(START, source, bench.device.type) for _ in range(max(2, bench.rounds))]
        runs = runs[1:]  # the first one warms the disk
        if not rows:
            for name, times in zip(("import torch", "import dim_data after it"), zip(*runs, strict=True), strict=False):
                rows.append({"name": name, "seconds": spread(list(times))})
        together = spread([run[2] + run[3] for run in runs])
        rows.append({"name": f"from DistilledLoader('{source}') to its first batch of 128", "seconds": together})
    return {"rows": rows}


def measure_profile(bench: Bench) -> dict[str, Any]:
    """Where the time goes while ConvNet-3 trains on ``DistilledLoader``: the operators that take most of it."""
    count = max(bench.batch, bench.size(640) // bench.batch * bench.batch)
    options = {"cache": False}  # each picture is made, in the thread that trains
    feed = DistilledLoader("cifar10", bench.batch, ipc=-(-count // 10), device=bench.device, **options)
    original, marked = feed.generator.decode, "synthesis of the pictures"

    def decode(*arguments: Any) -> torch.Tensor:
        with torch.profiler.record_function(marked):
            return original(*arguments)

    work = training_epoch(bench, "convnet3", feed)
    work()
    feed.generator.decode = decode
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
