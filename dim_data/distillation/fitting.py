"""How a preset is fitted to images: what goes with their size and their number, and why.

Presets are made for about 50,000 images of 32 pixels. Up to 32 pixels nothing changes. Above:

* A code has a number for so many pixels, as :data:`PIXELS` says: the larger an image, the more of it goes without
  saying. Decoding begins at a quarter of the size, as at 32 pixels, and above 64 pixels at an eighth where 8 divides
  it, to save arithmetic. At 64 pixels a map of 16x16x6 numbers comes closer in the same time than one of 8x8x24.
* The last doubling is smooth. At 64 pixels a pixel shuffle alone leaves a fine pattern that costs five points; at 32 it
  costs next to nothing.
* The classifiers of the pool are the ConvNets that the field uses at that size, one block deeper each time that 32
  pixels double: they see objects of the same share of the image.
* Batches are halved each time: an image has four times the pixels to learn from, and four times the cost.
* Fewer images take fewer steps, by the square root of their number; of fewer than 4,500 they take three tenths.
* The decoder of the paper writes the label over as many numbers of its noise as there are classes: noise grows with
  them, at any size, so that 90 numbers are left, as with ten classes.
* A prior of few images learns too little: with fewer than :data:`PRIOR_IMAGES`, at any size, noise is shaped by a
  Gaussian of each class's codes.
* The last step is taken: to choose by classifiers would cost more than a choice among few held-out images is worth.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from dim_data.distillation.choices import PriorTrainingConfig
from dim_data.distillation.presets import DistillConfig
from dim_data.images import ImageSpec
from dim_data.networks import usual_convnet

__all__ = ["fit_to_images"]

PIXELS = {1: 64 / 24, 2: 64 / 16}
"""For each number of a code, by how often 32 pixels double; up to 32 pixels 64 / 24."""
IMAGES = 50_000
"""A training set of which presets take all their steps."""
LEAST = 0.3
"""Share of the steps that the smallest set takes."""

PRIOR_IMAGES = {False: 20_000, True: 5_000}
"""From so many images on a prior is learned, up to 32 pixels and above, where a code has more numbers to learn from."""
NOISE, MAX_NOISE = 90, 1024
"""Numbers of the paper's noise that are left beside a label; the most that there may be in all."""


def fit_to_images(config: DistillConfig, spec: ImageSpec, count: int, keep: Collection[str] = ()) -> DistillConfig:
    """``config`` with what goes with the images fitted to them.

    Up to 32 pixels, and with an adversarial stage, it is as it was, but for the paper's noise and few images' prior.

    Args:
        config: One of :data:`~dim_data.distillation.PRESETS`, or one with some fields changed.
        spec: The images.
        count: How many there are.
        keep: Fields that somebody chose, such as ``"matching.steps"`` or ``"options.code_channels"``: they stay.
    """
    if config.first == "adversarial":
        latent_dim = min(MAX_NOISE, spec.num_classes + NOISE)
        if config.architecture != "dim" or "options.latent_dim" in keep or latent_dim <= NOISE + 10:
            return config
        return replace(config, options={**config.options, "latent_dim": latent_dim})
    few = count < PRIOR_IMAGES[spec.doublings > 0]
    if config.learns_prior and few and not any(name.startswith("prior.") for name in keep):
        config = replace(config, prior=PriorTrainingConfig(epochs=0))
    if not spec.doublings:
        return config
    share = min(1.0, max(LEAST, math.sqrt(count / IMAGES)))
    factor = 8 if spec.doublings > 1 and spec.size % 8 == 0 else 4
    wanted: dict[str, Any] = {"options.base": spec.size // factor, "pool.classifiers": (usual_convnet(spec),)}
    wanted["options.smooth"] = 1
    wanted["options.code_channels"] = round(factor**2 / PIXELS[spec.doublings])
    wanted["pool.ages"] = tuple(_rounded(age * share) for age in config.pool.ages)
    wanted["matching.steps"] = _rounded(config.matching.steps * share)
    for stage in ("reconstruction", "matching", "refining"):
        wanted[f"{stage}.batch_size"] = max(1, getattr(config, stage).batch_size >> spec.doublings)
    wanted["selection.checkpoints"] = min(1, config.selection.checkpoints)
    wanted["selection.images"] = max(1, _rounded(config.selection.images * share))
    values = config.to_dict()
    for name, value in wanted.items():
        if name not in keep:
            stage, _, field = name.rpartition(".")
            values[stage][field] = value
    return DistillConfig.from_dict(values)


def _rounded(value: float) -> int:
    """Two digits are enough of a number of steps."""
    places = 10 ** max(0, len(str(int(value))) - 2)
    return round(value / places) * places
