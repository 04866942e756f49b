"""How fast generators are, and the steps that make them."""

from __future__ import annotations

import json
from typing import Any

import torch
from original import OriginalGenerator, OriginalSteps, draw_noise, load_generator
from reproduce import weights_path
from speed_bench import CIFAR, Bench, Work, load
from torch.utils.flop_counter import FlopCounterMode

from dim_data import Generator, GeneratorConfig
from dim_data.adversarial import adversarial_parts, train_adversarial
from dim_data.compute import fast_dtype
from dim_data.hub import TRAINING_CONFIG
from dim_data.matching import match_images, match_labels
from dim_data.pool import start_pool
from dim_data.presets import PRESETS
from dim_data.real import LabelledImages
from dim_data.reconstruction import reconstruction_parts
from dim_data.storage import bundled_names


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


def measure_generator(bench: Bench) -> dict[str, Any]:
    """Images a second of each bundled generator and of the paper's, and how near the arithmetic's limit."""
    labels = torch.arange(bench.batch, device=bench.device) % 10
    serials = torch.arange(bench.batch, device=bench.device)
    generators = {name: load(name, bench.device) for name in bundled_names()}

    def synthesis(generator: Generator) -> Work:
        def work() -> int:
            generator.synthesize(labels, serials)
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
            count, name = facts[row["name"]]
            row |= {"gflop": round(count / 1e9, 3), "of_peak": round(count * row["rate"][0] / peak, 3)}
            if name:
                row |= {"source": name, "bytes": weights_path(name).stat().st_size}
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


def measure_distilling(bench: Bench) -> dict[str, Any]:
    """Seconds of an adversarial and of a matching step, ours against the original's way."""
    device, paper, default, batch = bench.device, PRESETS["paper"], PRESETS["default"], bench.step_batch
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
        whole.append({"name": name, "hours": float(f"{seconds / 3600:.3g}")})
    made = json.loads(weights_path("cifar10").with_name(TRAINING_CONFIG).read_text())
    took = round(made["minutes"] / 60, 2)
    whole.append({"name": "`cifar10` as bundled, as it was made", "hours": took, "source": "cifar10"})
    return {
        "reference": "the original's way",
        "batch": batch,
        "adversarial": adversarial,
        "matching": matching,
        "whole": whole,
    }
