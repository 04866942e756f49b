"""What ImageNet-1k would take, on paper: arithmetic counted, and a few assumptions. Nothing of it was measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from dim_data.distillation import PRESETS, DistillConfig, fit_to_images
from dim_data.distillation.reconstruction import Encoder
from dim_data.format import GeneratorConfig
from dim_data.generator import Generator
from dim_data.images import ImageSpec
from dim_data.networks import build_classifier
from timing.tables import table

IMAGES, CLASSES, SIZES, GPUS = 1_281_167, 1000, (64, 128), (1, 8)
PASSES = PRESETS["default"].matching.steps * PRESETS["default"].matching.batch_size / 50_000
"""Over the images, in the matching of CIFAR-10."""
RATE, LEAST, DECODED = 1e14, 0.015, 1600.0


@dataclass(frozen=True)
class Work:
    """What the default preset does with ImageNet at a size.

    Attributes:
        config: The preset, fitted.
        flops: Floating-point operations for an image, by stage: a multiplication and an addition are two.
        code_bytes: Of a stored code.
    """

    config: DistillConfig
    flops: dict[str, float]
    code_bytes: float


def work_of(size: int) -> Work:
    """Count what the stages do with an image of ``size`` pixels."""
    spec = ImageSpec("imagenet", 3, size, tuple(map(str, range(CLASSES))), (0.5,) * 3, (0.25,) * 3)
    config = fit_to_images(PRESETS["default"], spec, IMAGES)
    generator = Generator(GeneratorConfig(spec, "compact", "codes", options=config.options, codes=CLASSES))
    decoder = generator.decoder.requires_grad_(True)
    encoder = Encoder(spec, generator.decoder.latent_shape)
    classifier = build_classifier(config.pool.classifiers[0], spec)
    images, labels = torch.zeros(1, 3, size, size), torch.zeros(1, dtype=torch.int64)

    def match() -> Tensor:
        classifier.requires_grad_(False)
        with torch.no_grad():
            classifier(images)
        return classifier(decoder(encoder(images), labels)).sum()

    flops = {
        "pool": _count(lambda: classifier(images).sum()),
        "reconstruction": _count(lambda: decoder(encoder(images), labels).sum()),
        "matching": _count(match),
        "encoding": _count(lambda: encoder(images).sum(), backward=False),
    }
    return Work(config, flops, generator.bank.codes.nbytes / CLASSES)


def _count(run: Callable[[], Tensor], backward: bool = True) -> float:
    with FlopCounterMode(display=False) as counter:
        result = run()
        if backward:
            result.backward()
    return float(counter.get_total_flops())


def hours_of(work: Work, gpus: int, passes: float | None = None) -> dict[str, float]:
    """Hours of each stage.

    Args:
        work: What is done.
        gpus: How many share it.
        passes: Of matching, over all images; ``None``: the preset's steps.
    """
    config, flops = work.config, work.flops
    batch = config.matching.batch_size
    matching = config.matching.steps if passes is None else passes * IMAGES / batch

    def shared(count: float, stage: str, images: int) -> float:
        return count / gpus * max(LEAST, flops[stage] * images / RATE)

    # Members are trained side by side; the oldest is waited for.
    ages = config.pool.ages if gpus == 1 else (max(config.pool.ages),)
    seconds = {
        "reading": IMAGES / DECODED,
        "pool": sum(ages) * max(LEAST, flops["pool"] * 50 / RATE),
        "reconstruction": shared(config.reconstruction.steps, "reconstruction", config.reconstruction.batch_size),
        "matching": shared(matching, "matching", batch),
        "encoding": max(LEAST * IMAGES / 256 / gpus, flops["encoding"] * IMAGES / gpus / RATE),
    }
    return {name: value / 3600 for name, value in seconds.items()}


def render_imagenet() -> str:
    """Arithmetic, hours, bytes and memory at each size."""
    works = {size: work_of(size) for size in SIZES}
    counted: list[list[str]] = []
    for size, work in works.items():
        counted.append([f"{size} pixels", *(f"{value / 1e9:,.2f}" for value in work.flops.values())])
    rows = [
        _row(size, work, gpus, passes) for size, work in works.items() for gpus in GPUS for passes in (None, PASSES)
    ]
    heads = ["", "matching: images", "reading: h", "pool: h", "reconstruction: h", "matching: h", "encoding: h"]
    heads += ["all: h", "file: GB", "pixels on disk: GB"]
    stages = list(works[SIZES[0]].flops)
    return (
        f"{table(['GFLOP an image', *stages], counted)}\n\n{table(heads, rows)}\n\n"
        f"Calculated for {IMAGES:,} images and the default preset, whose steps do not grow with more than 50,000 "
        f"images, and again for the {PASSES:.1f} passes of matching that CIFAR-10 gets. Assumed: a GPU that does "
        f"{RATE / 1e12:.0f} TFLOP/s of these convolutions in bfloat16 and needs {LEAST * 1e3:.0f} ms for a step at "
        f"least, in which gradients reach the others too; batches that grow with the number of GPUs, and as many fewer "
        f"steps; {DECODED:,.0f} JPEG files read a second by all cores, once. Without the checkpoint's evaluation. "
        f"A process needs the memory of a million images above, and that of the file."
    )


def _row(size: int, work: Work, gpus: int, passes: float | None) -> list[str]:
    hours: dict[str, Any] = hours_of(work, gpus, passes)
    shown = work.config.matching.steps * work.config.matching.batch_size if passes is None else passes * IMAGES
    return [
        f"{size} pixels, {gpus} GPU{'s' if gpus > 1 else ''}",
        f"{shown / 1e6:,.2f} M",
        *(f"{value:,.2f}" for value in hours.values()),
        f"{sum(hours.values()):,.1f}",
        f"{work.code_bytes * IMAGES / 1e9:,.2f}",
        f"{IMAGES * 3 * size**2 / 1e9:,.1f}",
    ]
