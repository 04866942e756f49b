"""How a classifier is trained on an image source: the recipes of the protocol, as data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn

from dim_data.images import AUGMENTATIONS, ImageSpec, permitted
from dim_data.networks import Muon, check_choice, check_int, check_names, check_number

__all__ = ["RECIPES", "Recipe", "make_optimizer", "recipe_for"]


@dataclass(frozen=True)
class Recipe:
    """How a classifier is trained: cross-entropy, and a step with momentum.

    Args:
        name: A short identifier.
        batch_size: Images a step; an epoch smaller than this is one batch.
        lr: Learning rate; the peak of a one-cycle schedule.
        schedule: ``"constant"`` or ``"one-cycle"`` (a fifth of the steps to rise, then cosine).
        nesterov: Nesterov momentum; Muon's always is.
        augmentation: Keys of :data:`dim_data.images.AUGMENTATIONS`.
        momentum: A one-cycle schedule moves it between 0.95 and 0.85, against the rate.
        weight_decay: Of all weights in SGD's gradient; Muon's is decoupled and leaves biases and norms.
        optimizer: ``"sgd"`` or ``"muon"``, :class:`~dim_data.networks.Muon`.
        soft_labels: Share of a teacher's probabilities, stored with the images, in what is learned; the rest is the
            class.

    Raises:
        ValueError: A field is out of range, or names something unknown.
    """

    name: str
    batch_size: int
    lr: float
    schedule: Literal["constant", "one-cycle"]
    nesterov: bool
    augmentation: tuple[str, ...]
    momentum: float = 0.9
    weight_decay: float = 5e-4
    optimizer: Literal["sgd", "muon"] = "sgd"
    soft_labels: float = 0

    def __post_init__(self) -> None:
        check_int("Recipe.batch_size", self.batch_size, 1)
        check_number("Recipe.lr", self.lr, "(0, inf)")
        check_number("Recipe.momentum", self.momentum, "[0, 1)")
        check_number("Recipe.weight_decay", self.weight_decay, "[0, inf)")
        check_names("Recipe.augmentation", self.augmentation, AUGMENTATIONS)
        check_choice("Recipe.schedule", self.schedule, ("constant", "one-cycle"))
        check_choice("Recipe.optimizer", self.optimizer, ("sgd", "muon"))
        if not isinstance(self.soft_labels, int | float) or not 0 <= self.soft_labels <= 1:
            raise ValueError(f"Recipe.soft_labels must be a share in [0, 1], got {self.soft_labels!r}")


_TUNED = Recipe("tuned", 50, 0.05, "one-cycle", True, ("flip",))
_MUON = replace(_TUNED, name="muon", batch_size=100, weight_decay=0.05, optimizer="muon")

RECIPES: dict[str, Recipe] = {
    "paper": Recipe("paper", 128, 0.01, "constant", False, ("color", "crop")),
    "tuned": _TUNED,
    "soft": replace(_TUNED, name="soft", soft_labels=1),
    "muon": _MUON,
    "muon_soft": replace(_MUON, name="muon_soft", soft_labels=1),
    "muon_crop": replace(_MUON, name="muon_crop", augmentation=("flip", "crop")),
    "muon_crop_soft": replace(_MUON, name="muon_crop_soft", augmentation=("flip", "crop"), soft_labels=1),
    "muon_crop_mixed": replace(_MUON, name="muon_crop_mixed", augmentation=("flip", "crop"), soft_labels=0.5),
}
"""``paper`` is the DiM paper's deployment; ``tuned`` learns more from the same number of images, and ``muon`` more
still; ``muon_crop`` shifts the images too, for trainings that see each of them many times; ``soft``, ``muon_soft`` and
``muon_crop_soft`` are those three with a teacher's probabilities in place of the classes, where the generator stores
them; ``muon_crop_mixed`` learns half of these and half of the classes, for trainings that last."""


def recipe_for(recipe: str | Recipe, spec: ImageSpec, ipc: int) -> Recipe:
    """The recipe for one image set and budget.

    ``tuned`` and ``soft`` take smaller steps at one image per class. No recipe mirrors images of which a mirrored one
    is of another class, such as digits.

    Args:
        recipe: A name in :data:`RECIPES`, or a recipe: one of them is the same as its name.
        spec: The images.
        ipc: Images per class in each epoch.

    Raises:
        ValueError: The name is unknown.
    """
    if isinstance(recipe, str) and recipe not in RECIPES:
        raise ValueError(f"unknown recipe {recipe!r}: choose from {sorted(RECIPES)}")
    chosen = RECIPES[recipe] if isinstance(recipe, str) else recipe
    if chosen in (RECIPES["tuned"], RECIPES["soft"]) and ipc == 1:
        chosen = replace(chosen, batch_size=10, lr=0.01)
    augmentation = permitted(chosen.augmentation, spec)
    return chosen if augmentation == chosen.augmentation else replace(chosen, augmentation=augmentation)


def make_optimizer(parameters: Iterable[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer of ``parameters``, at its full rate."""
    if recipe.optimizer == "muon":
        return Muon(parameters, recipe.lr, recipe.momentum, recipe.weight_decay)
    return torch.optim.SGD(
        parameters, recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay, nesterov=recipe.nesterov
    )
