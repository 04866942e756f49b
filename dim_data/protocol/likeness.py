"""How near generated pictures come to training images: whether they are copies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dim_data.generator import Generator
from dim_data.images import ImageRows, ImageSpec, LabelledImages, torch_defaults, warn_caller
from dim_data.networks import autocast, channels_last, in_float32, resolve_device

__all__ = ["Likeness", "Nearness", "measure_likeness"]

BLOCK = 500
CLOSE = 0.01

Describe = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Nearness:
    """Distances to the nearest training image, of pictures and of real images that were not trained on.

    Held-out images that are training images themselves, pixel by pixel, do not count.

    Attributes:
        pictures: The median over the pictures.
        held_out: The median over the held-out images.
        close: Share of the pictures that are nearer to a training image than all but one in a hundred held-out images
            are. It is about 0.01 where nothing is copied, and about 1 where everything is.
    """

    pictures: float
    held_out: float
    close: float


@dataclass(frozen=True)
class Likeness:
    """What :func:`measure_likeness` found.

    Attributes:
        count: Pictures looked at.
        pixels: Root mean square differences of pixels, of 255. Smooth pictures lie nearer to all images than sharp
            ones, whether they are copies or not.
        features: Root mean square differences of what a classifier sees; ``None`` without a classifier.
    """

    count: int
    pixels: Nearness
    features: Nearness | None


@torch_defaults()
@torch.no_grad()
def measure_likeness(
    generator: Generator,
    train: LabelledImages,
    held_out: LabelledImages,
    classifier: nn.Module | None = None,
    *,
    count: int = 10_000,
    seed: int = 0,
    device: str | torch.device | None = None,
) -> Likeness:
    """Compare pictures with the training images nearest to them, and held-out images with those nearest to them.

    Args:
        generator: Whose pictures are looked at; as many of each class.
        train: The images that it was made from.
        held_out: Images of the same kind that it was not made from. Those that are in ``train`` nevertheless are left
            out, and a warning says how many.
        classifier: With a method ``features`` as in :mod:`dim_data.networks.classifiers`; its last feature map is
            compared. It is moved to ``device`` and put into eval mode.
        count: Pictures to look at, about: as many of each class.
        seed: Of the pictures.
        device: Default: CUDA where there is one.

    Raises:
        ValueError: ``count`` is not positive, an image set is empty, the images are not of the generator's kind, or all
            of ``held_out`` are in ``train``.
    """
    if count < 1 or not len(train) or not len(held_out):
        raise ValueError(f"likeness needs pictures and images, got {count}, {len(train)} and {len(held_out)} of them")
    spec, device = generator.spec, resolve_device(device)
    shape = (spec.channels, spec.size, spec.size)
    for images in (train.images, held_out.images):
        if tuple(images.shape[1:]) != shape:
            raise ValueError(f"the images must be {shape}, as the generator's are, got {tuple(images.shape[1:])}")
    each = max(1, count // spec.num_classes)
    labels, serials = (
        torch.arange(spec.num_classes).repeat(each),
        torch.arange(each).repeat_interleave(spec.num_classes),
    )
    pairs = zip(labels.split(BLOCK), serials.split(BLOCK), strict=True)
    drawn = torch.cat([generator.synthesize(*pair, seed=seed).cpu() for pair in pairs])
    near, beside = _distances(lambda images: images.to(device).float().flatten(1), drawn, train, held_out)
    apart = beside > 0
    if not apart.any():
        raise ValueError(f"all {len(held_out)} held-out images are in train: compare with images that are not")
    if not apart.all():
        warn_caller(f"left out {int((~apart).sum())} of {len(held_out)} held-out images: they are in train")
    found = _nearness(near, beside[apart])
    if classifier is None:
        return Likeness(len(drawn), found, None)
    near, beside = _distances(_seen_by(classifier, spec, device), drawn, train, held_out)
    return Likeness(len(drawn), found, _nearness(near, beside[apart]))


def _seen_by(classifier: nn.Module, spec: ImageSpec, device: torch.device) -> Describe:
    """The classifier's last feature map, in at most 4x4 parts."""
    watcher: Any = in_float32(channels_last(classifier.eval(), device))

    def describe(images: Tensor) -> Tensor:
        batch = spec.normalize(images.to(device)).contiguous(memory_format=torch.channels_last)
        with autocast(device):
            seen = watcher.features(batch)[-2]
        return F.adaptive_avg_pool2d(seen.float(), 4).flatten(1)

    return describe


def _distances(
    describe: Describe, drawn: Tensor, train: LabelledImages, held_out: LabelledImages
) -> tuple[Tensor, Tensor]:
    """Of pictures and of held-out images to the nearest training image."""
    blocks = [describe(block) for images in (drawn, held_out.images) for block in images.split(BLOCK)]
    near, beside = nearest_distances(describe, torch.cat(blocks), train.images).split([len(drawn), len(held_out)])
    return near, beside


def _nearness(near: Tensor, beside: Tensor) -> Nearness:
    limit = beside.quantile(CLOSE)
    return Nearness(near.median().item(), beside.median().item(), (near < limit).double().mean().item())


def nearest_distances(describe: Describe, asked: Tensor, others: Tensor | ImageRows) -> Tensor:
    """Root mean square difference of each row of ``asked`` to the nearest of ``others``: float32 (N,), on the CPU.

    Args:
        describe: Images uint8 (B, C, H, W) to what is compared, float32 (B, D).
        asked: Images, so described: (N, D).
        others: uint8 (M, C, H, W).
    """
    best, places = asked.new_full((len(asked),), torch.inf), torch.zeros(len(asked), dtype=torch.int64)
    for number, block in enumerate(map(describe, others.split(BLOCK))):
        # Squares by one product find the nearest; the distances themselves are then taken exactly.
        scores, found = (block.square().sum(1) - 2 * asked @ block.T).min(1)
        places = torch.where((scores < best).cpu(), number * BLOCK + found.cpu(), places)
        best = torch.minimum(best, scores)
    pairs = zip(asked.split(BLOCK), places.split(BLOCK), strict=True)
    return torch.cat([(some - describe(others[at])).square().mean(1) for some, at in pairs]).sqrt().cpu()
