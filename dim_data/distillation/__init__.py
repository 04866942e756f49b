"""Making a generator from real images; all that is thrown away afterwards.

* ``stages``: :func:`distill`, the stages in order. Begin here.
* ``choices``: each stage's configuration. ``presets``: all of them, and named sets.
* ``fitting``: what of a preset goes with the size and the number of the images.
* First ``reconstruction`` or ``adversarial``, then ``matching`` under the classifiers of ``pool``, then ``refining``.
* ``prior_training``: what a prior learns, from which codes are drawn for ever. ``likelihood``: its loop. ``clusters``:
  parts of a class. ``learning``: all that for a decoder made before. ``encoding``: an encoder for such a one.
* ``slimming``: a smaller decoder for the same latents.
* ``loops``: the training loops' steps. ``candidates``: what would be shipped, and how good it is.
* ``folders``: a run's folder. ``runs``: what in it survives being killed. ``pictures``: what in it is for people.
* ``sharing``: what several ranks must agree on first.

Imports ``protocol`` and the floors below it, but not ``loading``.
"""

from __future__ import annotations

from dim_data.distillation.choices import (
    AdversarialConfig,
    LabelsConfig,
    MatchingConfig,
    PoolConfig,
    PriorTrainingConfig,
    ReconstructionConfig,
    RefiningConfig,
    SelectionConfig,
)
from dim_data.distillation.fitting import fit_to_images
from dim_data.distillation.folders import check_outside, claimed
from dim_data.distillation.learning import learn_prior
from dim_data.distillation.loops import StageStep
from dim_data.distillation.presets import PRESETS, DistillConfig
from dim_data.distillation.refining import refine_codes, relabel_codes
from dim_data.distillation.runs import DivergenceError
from dim_data.distillation.slimming import SLIM_STEPS, slim_decoder
from dim_data.distillation.stages import distill
from dim_data.protocol import StoppedError

__all__ = [
    "PRESETS",
    "SLIM_STEPS",
    "AdversarialConfig",
    "DistillConfig",
    "DivergenceError",
    "LabelsConfig",
    "MatchingConfig",
    "PoolConfig",
    "PriorTrainingConfig",
    "ReconstructionConfig",
    "RefiningConfig",
    "SelectionConfig",
    "StageStep",
    "StoppedError",
    "check_outside",
    "claimed",
    "distill",
    "fit_to_images",
    "learn_prior",
    "refine_codes",
    "relabel_codes",
    "slim_decoder",
]
