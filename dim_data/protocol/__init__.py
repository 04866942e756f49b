"""The protocol of the DiM paper: how good is what a classifier is trained on?

* ``evaluation``: :func:`evaluate`, fresh classifiers, trained and tested once. Begin here.
* ``training``: how one of them is trained and tested.
* ``recipes``: how a classifier is trained, by name in :data:`RECIPES`: a new recipe is an entry there.
* ``showing``: what a classifier is shown. ``checkpointer``, ``states``: trainings that go on after a kill.
* ``teaching``: classifiers that label a generator's pictures.
* ``likeness``: :func:`measure_likeness`, how near pictures come to training images.

Imports ``loading`` and the floors below it; nothing of ``distillation``.
"""

from __future__ import annotations

from dim_data.protocol.checkpointer import Checkpointer, seconds_kept
from dim_data.protocol.evaluation import Evaluation, evaluate
from dim_data.protocol.likeness import Likeness, Nearness, measure_likeness
from dim_data.protocol.recipes import RECIPES, Recipe, recipe_for
from dim_data.protocol.states import LoopState, StoppedError, differences
from dim_data.protocol.teaching import train_teacher
from dim_data.protocol.training import ClassifierStep, measure_accuracy, train_classifier

__all__ = [
    "RECIPES",
    "Checkpointer",
    "ClassifierStep",
    "Evaluation",
    "Likeness",
    "LoopState",
    "Nearness",
    "Recipe",
    "StoppedError",
    "differences",
    "evaluate",
    "measure_accuracy",
    "measure_likeness",
    "recipe_for",
    "seconds_kept",
    "train_classifier",
    "train_teacher",
]
