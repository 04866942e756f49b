"""How fast generators are, and the steps that make them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from accuracy.cells import weights_of
from dim_data import Generator, GeneratorConfig
from dim_data.distillation import PRESETS
from dim_data.distillation.adversarial import adversarial_parts, train_adversarial
from dim_data.distillation.matching import match_images, match_labels
from dim_data.distillation.pool import start_pool
from dim_data.distillation.reconstruction import reconstruction_parts
from dim_data.generator import bundled_names, read_training
from dim_data.images import LabelledImages
from dim_data.networks import fast_dtype
from timing.contest import CIFAR, Bench, Work, load
from timing.original import OriginalGenerator, OriginalSteps, draw_noise, load_generator

ORIGINAL = "the original's way"


def matrix_product(bench: Bench) -> Work:
    """A large matrix product in the fast number format; returns millions of operations."""
    size = 2048 if bench.device.type == "cpu" else 8192
    a, b = (torch.randn(size, size, device=bench.device, dtype=fast_dtype(bench.device)) for _ in range(2))

    def work() -> int:
        a @ b
        return 2 * size**3 // 10**6

    return work


class Operations(TorchDispatchMode):
    """Counts floating-point operations by torch's own formulas.

    ``FlopCounterMode`` would do, but it follows modules by hooks that a second derivative cannot pass.
    """

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and add what it takes."""
        found = func(*args, **(kwargs or {}))
        if func.overloadpacket in flop_registry:
            self.total += flop_registry[func.overloadpacket](*args, **(kwargs or {}), out_val=found)
        return found


def operations(generator: Generator) -> int:
    """Floating-point operations of one image."""
    device = next(generator.parameters()).device
    labels = torch.zeros(1, dtype=torch.int64, device=device)
    latents = generator.latents(labels, labels)
    with torch.no_grad(), Operations() as counter:
        generator.decoder(latents, labels)
    return counter.total


def measure_generator(bench: Bench) -> dict[str, Any]:
    """Images a second of each bundled generator and of the paper's, and how near the arithmetic's limit."""
    labels = torch.arange(bench.batch, device=bench.device) % 10
    generators = {name: load(name, bench.device) for name in bundled_names()}

    def synthesis(generator: Generator) -> Work:
        starts = count(0, bench.batch)

        def work() -> int:
            places = torch.arange(bench.batch, device=bench.device) + next(starts)  # as an epoch asks for them
            generator.synthesize(places % 10, places // 10)
            return bench.batch

        return work

    def forward(net: torch.nn.Module) -> Work:
        noise = draw_noise(labels, 10)

        def work() -> int:
            with torch.no_grad():
                net(noise)
            return bench.batch

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
    facts: dict[str, tuple[int, str | None]] = {f"`{name}`": (operations(g), name) for name, g in generators.items()}
    facts["the paper's network in this library"] = (operations(fast_paper), None)
    kept = []
    for row in rows:
        if row["name"] == product:
            continue
        if row["name"] in facts:
            work, name = facts[row["name"]]
            row |= {"gflop": round(work / 1e9, 3), "of_peak": round(work * row["rate"][0] / peak, 3)}
            if name:
                row |= {"source": name, "bytes": weights_of(generators[name]).stat().st_size}
        kept.append(row)
    return {"reference": paper, "batch": bench.batch, "peak_tflops": float(f"{peak / 1e12:.3g}"), "rows": kept}


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


def operations_of(work: Work, steps: int) -> int:
    """Floating-point operations of one of the ``steps`` that ``work`` takes; nothing in it may be compiled yet."""
    with mock.patch.dict(os.environ, {"DIM_DATA_COMPILE": "0"}), Operations() as counter:
        work()
    return counter.total // steps


def distilling_steps(bench: Bench) -> dict[str, dict[str, tuple[Callable[[], Work], int]]]:
    """For each stage the contestants, the original's way first: what makes one, and how many steps its work is."""
    device, paper, default, batch = bench.device, PRESETS["paper"], PRESETS["default"], bench.step_batch
    data = random_data(max(batch * 17, bench.size(2000))).to(device)
    on_cpu = LabelledImages(data.images.cpu(), data.labels.cpu(), CIFAR)
    endless, asked = 10**9, len(default.pool.ages)

    def timed(config: Any) -> Any:
        """A stage's configuration with the batch that is measured, and no end."""
        return replace(config, steps=endless, batch_size=batch)

    def ours(config: Any, source: str) -> Generator:
        codes = 10 if source == "codes" else 0
        return Generator(
            GeneratorConfig(CIFAR, config.architecture, source, options=config.options, codes=codes)  # type: ignore[arg-type]
        ).to(device)

    def game() -> Any:
        return adversarial_parts(ours(paper, "noise"), paper.adversarial, 0.999, 0, device)

    def pool(config: Any) -> Any:
        return start_pool(replace(config.pool, classifiers=("convnet3",)), CIFAR, 0, device)

    def original() -> OriginalSteps:
        return OriginalSteps(on_cpu, batch, "convnet3", device)

    def paper_game() -> Work:
        return steps_of(
            train_adversarial(game(), data, timed(paper.adversarial), augmentation=(), device=device), batch
        )

    def paper_matching() -> Work:
        kept = replace(paper.pool, lifetime=endless)
        loop = match_labels(game(), pool(paper), data, timed(paper.matching), kept, device=device)
        return steps_of(loop, batch)

    def default_matching() -> Work:
        state, matching = reconstruction_parts(ours(default, "codes"), 0.999, 0, device), timed(default.matching)
        loop = match_images(state, pool(default), data, matching, augmentation=default.augmentation, device=device)
        return steps_of(loop, batch, asked)

    return {
        "adversarial": {ORIGINAL: (lambda: original().adversarial, 1), "preset `paper`": (paper_game, 1)},
        "matching": {
            ORIGINAL: (lambda: original().matching, 1),
            "preset `paper`: the same networks, batch and 16 steps of a member": (paper_matching, 1),
            "preset `default`: as many pairs, members kept": (default_matching, asked),
        },
    }


def measure_arithmetic(bench: Bench) -> dict[str, Any]:
    """Floating-point operations of each step that :func:`measure_distilling` times."""
    stages = distilling_steps(bench).items()
    return {
        stage: {name: round(operations_of(make(), steps) / 1e9, 1) for name, (make, steps) in contestants.items()}
        for stage, contestants in stages
    }


def measure_distilling(bench: Bench) -> dict[str, Any]:
    """Seconds of an adversarial and of a matching step, ours against the original's way."""
    paper = PRESETS["paper"]
    found: dict[str, Any] = {"reference": ORIGINAL, "batch": bench.step_batch}
    for stage, contestants in distilling_steps(bench).items():
        found[stage] = bench.compete({name: make() for name, (make, _) in contestants.items()}, ORIGINAL)
        for row in found[stage]:
            row["seconds_per_step"] = float(f"{bench.step_batch / row['rate'][0]:.4g}")
    whole = []
    for name, index in (
        (f"the paper's schedule in {ORIGINAL}, at these rates", 0),
        ("the same by preset `paper`", 1),
    ):
        first, second = (stage.steps * stage.batch_size for stage in (paper.adversarial, paper.matching))
        seconds = first / found["adversarial"][index]["rate"][0] + second / found["matching"][index]["rate"][0]
        whole.append({"name": name, "hours": float(f"{seconds / 3600:.3g}")})
    made = read_training(load("cifar10", bench.device).folder)
    took = round((made["minutes"] + made.get("refining_minutes", 0)) / 60, 2)
    whole.append({"name": "`cifar10` as bundled, as it was made", "hours": took, "source": "cifar10"})
    return {**found, "whole": whole}
