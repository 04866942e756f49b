"""A prior goes on learning from codes of its own: of those pictures in which classifiers see the class asked for.

A prior of codes writes now and then a picture that is no picture of its class, and what such a picture teaches is
wrong. Throwing these away when pictures are made would need a classifier beside every generator, and several codes
for a picture. Here they are thrown away once, and the prior learns what is left, with the codes of the real images
beside it, so that what is seldom is not forgotten.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from dim_data.distillation.choices import TuningConfig
from dim_data.distillation.lessons import Lesson, to_numbers
from dim_data.distillation.likelihood import CodeSet, fit_prior, prior_parts
from dim_data.distillation.loops import StageStep
from dim_data.generator import Generator, LearnedPrior, opinions
from dim_data.images import in_steps
from dim_data.networks import TokenPrior
from dim_data.protocol import LoopState

__all__ = ["Tuning"]

DRAWN = 1000
"""Codes drawn in a step."""
SEED = 1 << 62
"""Added to the seed that codes are drawn with, so that no user is handed what the prior was tuned on."""


class Accepted:
    """Codes that were accepted so far, and what they were told; can be saved.

    Attributes:
        drawn: How many were drawn for them.
    """

    def __init__(self) -> None:
        self.parts: list[tuple[Tensor, ...]] = []
        self.drawn = 0

    @property
    def codes(self) -> CodeSet:
        """All of them, on the CPU."""
        codes, labels, clusters, features = (torch.cat(column) for column in zip(*self.parts, strict=True))
        return CodeSet(codes, labels, clusters, features)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""
        return {"parts": [list(part) for part in self.parts], "drawn": self.drawn}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave."""
        self.parts, self.drawn = [tuple(part) for part in state_dict["parts"]], state_dict["drawn"]


@dataclass
class Tuning:
    """The stage: codes are drawn and judged, then the prior goes on with those accepted.

    Attributes:
        state: Of both loops, which can be saved between any two steps.
        lesson: What the prior was trained on, and is trained on further.
        config: Of the stage.
        judges: Classifiers of the pictures.
        painter: With the prior as it was trained.
        seed: Of the draws.
    """

    state: LoopState
    lesson: Lesson
    config: TuningConfig
    judges: Sequence[nn.Module]
    painter: Generator
    seed: int

    @classmethod
    def of(
        cls, painter: Generator, lesson: Lesson, judges: Sequence[nn.Module], config: TuningConfig, seed: int
    ) -> Tuning:
        """The stage, to begin when the ``lesson`` is over, with the decoder of ``painter``."""
        fitting = prior_parts(copy.deepcopy(lesson.result), config.lr, seed, lesson.device)
        state = LoopState({"accepted": Accepted(), "fitting": fitting}, seed)
        return cls(state, lesson, config, judges, painter, seed)

    @property
    def result(self) -> TokenPrior:
        """The averaged weights."""
        average: TokenPrior = self.state.parts["fitting"].parts["average"].module
        return average

    def steps(self) -> Iterator[StageStep]:
        """Draw, then train, yielding after each step."""
        yield from self._draw()
        drawn: Accepted = self.state.parts["accepted"]
        accepted = drawn.codes
        if not len(accepted):
            raise ValueError(
                f"no picture was accepted: in none of {drawn.drawn} did the classifiers give the class asked for more "
                f"than {self.config.accept}. A smaller tuning.accept, or a prior trained for longer, may help"
            )
        fitting: LoopState = self.state.parts["fitting"]
        lesson = self.lesson
        if not fitting.step:
            for network in (fitting.parts["prior"], fitting.parts["average"].module):
                network.load_state_dict(lesson.result.state_dict())
        # Bits of held-out codes rise: it is not those that the prior is to write now.
        config = replace(lesson.config, lr=self.config.lr, epochs=self.config.epochs, looks=4, patience=1 << 20)
        both = lesson.train.with_drawn(accepted)
        yield from fit_prior(
            fitting,
            both,
            lesson.held_out,
            config,
            lesson.dropout,
            encode=lesson.encode,
            stage="tuning",
            device=lesson.device,
            ranks=lesson.ranks,
        )

    @in_steps(painting=True)
    def _draw(self) -> Iterator[StageStep]:
        accepted: Accepted = self.state.parts["accepted"]
        lesson, spec, ranks = self.lesson, self.painter.spec, self.lesson.ranks
        count = max(1, round(self.config.draws * len(lesson.train)))
        steps = -(-count // DRAWN)
        if accepted.drawn >= count:
            return
        generator = self.painter.with_prior(lesson.result)
        source = cast(LearnedPrior, generator.source)

        def draw(start: int) -> tuple[Tensor, ...]:
            places = torch.arange(start, min(count, start + DRAWN), device=lesson.device)
            asked = places % spec.num_classes, places // spec.num_classes, self.seed + SEED
            clusters, features = source.conditions(*asked)
            latents = generator.latents(*asked)
            said = opinions(self.judges, generator.paint(latents, asked[0]), spec)
            kept = said.gather(1, asked[0][:, None])[:, 0] > self.config.accept
            seen = latents.new_zeros(len(places), 0) if features is None else features
            codes = to_numbers(latents, lesson.result.levels)
            return tuple(x[kept].cpu() for x in (codes, asked[0], clusters, seen))

        while accepted.drawn < count:
            starts = range(accepted.drawn, count, DRAWN)[: ranks.size]
            own = draw(starts[ranks.rank]) if ranks.rank < len(starts) else (None,) * 4
            found = zip(*(ranks.gather(column) for column in own), strict=True)
            parts = [cast(tuple[Tensor, ...], part) for part in found][: len(starts)]
            accepted.parts += parts
            accepted.drawn = min(count, starts[-1] + DRAWN)
            for start, part in zip(starts, parts, strict=True):
                share = len(part[0]) / min(DRAWN, count - start)
                yield StageStep("drawing", start // DRAWN + 1, steps, {"accepted": share})
