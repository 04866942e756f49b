"""How a classifier is trained on an image source: the recipes of the protocol, as data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from dim_data.augment import permitted
from dim_data.specs import ImageSpec

__all__ = ["RECIPES", "Recipe", "recipe_for"]


@dataclass(frozen=True)
class Recipe:
    """How a classifier is trained: SGD with momentum on cross-entropy.

    Args:
        name: A short identifier.
        batch_size: Images a step; an epoch smaller than this is one batch.
        lr: Learning rate; the peak of a one-cycle schedule.
        schedule: ``"constant"`` or ``"one-cycle"`` (a fifth of the steps to rise, then cosine).
        nesterov: Nesterov momentum.
        augmentation: Keys of :data:`dim_data.augment.AUGMENTATIONS`.
        momentum: Of SGD; a one-cycle schedule moves it between 0.95 and 0.85, against the rate.
        weight_decay: Of SGD.
        soft_labels: Learn a teacher's probabilities, stored with the images, in place of the classes.
    """

    name: str
    batch_size: int
    lr: float
    schedule: Literal["constant", "one-cycle"]
    nesterov: bool
    augmentation: tuple[str, ...]
    momentum: float = 0.9
    weight_decay: float = 5e-4
    soft_labels: bool = False


RECIPES: dict[str, Recipe] = {
    "paper": Recipe("paper", 128, 0.01, "constant", False, ("color", "crop")),
    "tuned": Recipe("tuned", 50, 0.05, "one-cycle", True, ("flip",)),
    "soft": Recipe("soft", 50, 0.05, "one-cycle", True, ("flip",), soft_labels=True),
}
"""``paper`` is the DiM paper's deployment; ``tuned`` learns more from the same number of images; ``soft`` is
``tuned`` with a teacher's probabilities in place of the classes, where the generator stores them."""


def recipe_for(recipe: str | Recipe, spec: ImageSpec, ipc: int) -> Recipe:
    """The recipe for one budget: smaller steps at one image per class, save in ``paper``; nobody mirrors digits.

    Raises:
        ValueError: The name is unknown.
    """
    if isinstance(recipe, Recipe):
        return recipe
    if recipe not in RECIPES:
        raise ValueError(f"unknown recipe {recipe!r}: choose from {sorted(RECIPES)}")
    chosen = RECIPES[recipe]
    if recipe != "paper" and ipc == 1:
        chosen = replace(chosen, batch_size=10, lr=0.01)
    return replace(chosen, augmentation=permitted(chosen.augmentation, spec))
