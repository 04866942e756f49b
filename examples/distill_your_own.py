"""Distil your own images: here two thousand drawings of four shapes, made on the spot.

python examples/distill_your_own.py --out runs/shapes
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from dim_data import DistillConfig, DistilledDataset, distill
from dim_data.distillation import MatchingConfig, PoolConfig, ReconstructionConfig, SelectionConfig

CLASSES = ("disc", "square", "stripes", "cross")


def draw_shapes(count: int, size: int = 32, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random coloured shapes: uint8 (count, 3, size, size) and labels (count,)."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % len(CLASSES)
    centre = torch.rand(count, 2, 1, 1, generator=rng) * size / 2 + size / 4
    radius = torch.rand(count, 1, 1, generator=rng) * size / 6 + size / 8
    axis = torch.arange(size).float()
    y, x = (axis.view(1, -1, 1) - centre[:, 0]).abs(), (axis.view(1, 1, -1) - centre[:, 1]).abs()
    masks = torch.stack(
        [
            (x**2 + y**2).sqrt() < radius,
            torch.maximum(x, y) < radius,
            (torch.maximum(x, y) < radius) & (y % 4 < 2),
            (torch.minimum(x, y) < radius / 3) & (torch.maximum(x, y) < radius),
        ],
        1,
    )[torch.arange(count), labels]
    paint, ground = (torch.rand(count, 3, 1, 1, generator=rng) for _ in range(2))
    images = torch.where(masks[:, None], paint, 0.3 * ground)
    return (images * 255).to(torch.uint8), labels


def main(out: str = "runs/shapes", count: int = 2000, steps: int = 300, width: int = 32) -> float:
    """Distil, then look: returns the mean absolute difference between two epochs' first pictures."""
    config = DistillConfig(
        options={"width": width, "top_width": 8, "code_channels": 2},
        reconstruction=ReconstructionConfig(steps=steps // 2),
        matching=MatchingConfig(steps=steps),
        pool=PoolConfig(ages=(steps // 4, steps // 2)),
        selection=SelectionConfig(images=400),
    )
    generator = distill(draw_shapes(count), config=config, out=out)
    print(f"{generator.config.codes} codes and a decoder: {generator.nbytes / 1e6:.2f} MB in {Path(out) / 'generator'}")

    dataset = DistilledDataset(generator, ipc=10)
    first, label = dataset[0]
    second, _ = dataset[0]  # drawn again: a new picture of the same class
    print(f"class {CLASSES[label]}: {first.size} pixels; see {Path(out) / 'samples.png'}")
    a, b = (pil_to_tensor(image).float() for image in (first, second))
    return (a - b).abs().mean().item()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/shapes")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--width", type=int, default=32)
    main(**vars(parser.parse_args()))
