"""What the stages' training loops share: averaged weights, records, batches, and how they are gone through."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dim_data.images import WHOLE, LabelledImages, Portion
from dim_data.protocol import Checkpointer, LoopState

__all__ = ["Ema", "StageStep", "checkpointed", "draw_batch"]


@dataclass(frozen=True)
class StageStep:
    """One step of a stage.

    Attributes:
        stage: Name of the stage.
        step: 1 to ``steps``.
        steps: Steps of the whole stage.
        losses: Named loss terms, before weighting.
    """

    stage: str
    step: int
    steps: int
    losses: Mapping[str, float]


class Ema:
    """An exponential moving average of a module's floating-point state, with a ramp at the start.

    After ``t`` updates the decay is ``min(decay, (1 + t) / (10 + t))``, so early weights are forgotten.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(module).requires_grad_(False)
        self.decay, self.updates = decay, 0

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move the average towards ``module``; integer buffers are copied."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for mine, theirs in zip(self.module.state_dict().values(), module.state_dict().values(), strict=True):
            if mine.is_floating_point():
                mine.lerp_(theirs, 1 - decay)
            else:
                mine.copy_(theirs)

    def state_dict(self) -> dict[str, Any]:
        """Weights and number of updates."""
        return {"module": self.module.state_dict(), "updates": self.updates}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave."""
        self.module.load_state_dict(state_dict["module"])
        self.updates = state_dict["updates"]


def draw_batch(
    data: LabelledImages, batch_size: int, rng: torch.Generator, device: torch.device, portion: Portion = WHOLE
) -> tuple[Tensor, Tensor]:
    """A random batch with replacement: float images (B, C, H, W) in [0, 1], channels last; labels (B,).

    Of a batch that is shared, its ``portion``.
    """
    index = portion.of(torch.randint(len(data), (batch_size,), generator=rng)).to(data.images.device)
    images = data.images[index].to(device).float() / 255
    return images.contiguous(memory_format=torch.channels_last), data.labels[index].to(device)


def checkpointed(
    steps: Iterable[StageStep],
    state: LoopState,
    checkpointer: Checkpointer,
    on_step: Callable[[StageStep], object] | None,
    should_stop: Callable[[], bool] | None,
) -> None:
    """Go through all ``steps`` of ``state``, which ``checkpointer`` keep from one to the next, and at the end.

    The file is whoever made the call's to remove, who knows when the result is safe.

    Raises:
        OSError: The file could not be written.
        StoppedError: ``should_stop`` said so after a step.
    """
    for step in steps:
        if on_step is not None:
            on_step(step)
        if should_stop is not None and should_stop():
            raise checkpointer.stopped(f"stage {step.stage!r}, step {step.step} of {step.steps}")
        checkpointer.step(state)
    checkpointer.save()
