"""Making a generator from real images; all that is thrown away afterwards.

* ``stages``: :func:`distill`, the stages in order. Begin here. ``presets``: every choice, and named sets of them.
* First ``reconstruction`` or ``adversarial``, then ``matching`` under the classifiers of ``pool``, then ``refining``.
* ``loops``: the training loops' steps. ``candidates``: what would be shipped, and how good it is.
* ``runs``: a run's folder, which survives being killed. ``curves``: its losses, drawn.

Imports ``protocol`` and the floors below it, but not ``loading``.
"""

from __future__ import annotations

from dim_data.distillation.loops import StageStep
from dim_data.distillation.presets import PRESETS, DistillConfig
from dim_data.distillation.refining import refine_codes, relabel_codes
from dim_data.distillation.runs import RESULT, DivergenceError, StoppedError
from dim_data.distillation.stages import distill

__all__ = [
    "PRESETS",
    "RESULT",
    "DistillConfig",
    "DivergenceError",
    "StageStep",
    "StoppedError",
    "distill",
    "refine_codes",
    "relabel_codes",
]
