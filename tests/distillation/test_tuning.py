"""A prior goes on with codes of its own that classifiers accept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from surroundings import plain
from torch import Tensor, nn

from conftest import TINY, make_data, make_generator, stopping
from dim_data import DistillConfig, Generator, GeneratorConfig, StoppedError
from dim_data.distillation import PriorTrainingConfig, TuningConfig, learn_prior, tuning

LEARNING = PriorTrainingConfig(
    epochs=20, batch_size=32, lr=1e-2, width=16, layers=1, hidden=8, clusters=1, features=0, corruption=0.0, looks=2
)
TUNING = TuningConfig(draws=2.0, accept=0.5, epochs=10, lr=1e-2)
LEVELS = (0, 1, 3)


def latents_of(levels: Tensor, shape: tuple[int, ...]) -> Tensor:
    return (levels / 1.5 - 1)[:, None, None, None].expand(-1, *shape)


def make_codes() -> Generator:
    """Of the first class half the codes are all 0 and half all 1; those of the second are all 3."""
    spec = make_data(3, 32, 2).spec
    made = make_generator(GeneratorConfig(spec, "compact", "codes", {**TINY, "code_channels": 2}, codes=120))
    labels, levels = torch.arange(120) % 2, torch.tensor([0, 3, 1, 3]).repeat(30)
    return made.store(latents_of(levels, made.decoder.latent_shape), labels).requires_grad_(False).eval()


class Judge(nn.Module):
    """Sees the first class where codes are all 0, the second in all else."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        labels = torch.tensor([0, 0, 1])
        pictures = generator.paint(latents_of(torch.tensor(LEVELS), generator.decoder.latent_shape), labels)
        self.known = nn.Parameter(generator.spec.normalize(pictures.float() / 255), requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        return -1000 * (images[:, None] - self.known[:2]).square().flatten(2).mean(2)


def share(generator: Generator) -> float:
    """Of the first class's codes: how many of their numbers are 0."""
    serials = torch.arange(200)
    latents = generator.latents(torch.zeros_like(serials), serials)
    return (latents == -1).float().mean().item()


def test_what_is_accepted_is_drawn_more_often(float32: None) -> None:
    generator, steps = make_codes(), []
    before = learn_prior(generator, config=LEARNING, device="cpu")
    options: dict[str, Any] = {"tuning": TUNING, "judges": [Judge(generator)], "device": "cpu"}
    after = learn_prior(generator, config=LEARNING, **options, on_step=steps.append)
    assert 0.35 < share(before) < 0.65
    assert share(after) > share(before) + 0.1
    ones = torch.ones(100, dtype=torch.int64)
    assert (after.latents(ones, torch.arange(100)) == 1).float().mean() > 0.9  # all of these are accepted
    assert list(dict.fromkeys(s.stage for s in steps)) == ["prior", "drawing", "tuning"]
    drawn = [s for s in steps if s.stage == "drawing"]
    assert 0.6 < drawn[-1].losses["accepted"] < 0.9
    assert (drawn[-1].step, drawn[-1].steps) == (1, 1)


@pytest.mark.parametrize("stage", ["drawing", "tuning"])
def test_a_stopped_call_goes_on(stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "DRAWN", 50)
    generator, file = make_codes(), tmp_path / "prior.pt"
    options: dict[str, Any] = {"config": replace(LEARNING, epochs=2), "tuning": replace(TUNING, epochs=1)}
    options |= {"judges": [Judge(generator)], "device": "cpu"}
    whole = learn_prior(generator, **options)
    with pytest.raises(StoppedError, match=f"stopped in stage '{stage}', step 2 of"):
        learn_prior(generator, **options, checkpoint=file, **stopping(stage, 2))
    other = {**options, "tuning": replace(TUNING, epochs=1, accept=0.6)}
    with pytest.raises(ValueError, match=r"differs in tuning.accept \(0.5 there, 0.6 here\)"):
        learn_prior(generator, **other, checkpoint=file)
    assert plain(learn_prior(generator, **options, checkpoint=file)) == plain(whole)
    assert not file.exists()


def test_what_cannot_be_judged_is_refused() -> None:
    with pytest.raises(ValueError, match="tuning needs someone to judge the pictures"):
        learn_prior(make_codes(), config=LEARNING, tuning=TUNING, device="cpu")
    generator = make_codes()
    with pytest.raises(ValueError, match=r"no picture was accepted: in none of 228 .* more than 0\.5"):
        learn_prior(
            generator,
            config=replace(LEARNING, epochs=1),
            tuning=TUNING,
            judges=[Sceptic()],
            device="cpu",
        )
    with pytest.raises(ValueError, match=r"tuning\.\* is set, and would not be read"):
        DistillConfig(tuning=TUNING)
    with pytest.raises(ValueError, match=r"tuning.accept must be a number in \[0, 1\), got 1.0"):
        TuningConfig(accept=1.0)


class Sceptic(nn.Module):
    """Is never sure."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> Tensor:
        return images.new_zeros(len(images), 2)
