"""The prior's training loop: it learns, stops, and resumes."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from dim_data.distillation.choices import PriorTrainingConfig
from dim_data.distillation.likelihood import (
    CodeSet,
    fit_conditions,
    fit_prior,
    held_out_bits,
    prior_for,
    prior_parts,
    prior_steps,
)
from dim_data.networks import PriorConfig, TokenPrior
from dim_data.protocol import LoopState

CPU = torch.device("cpu")
SMALL = PriorConfig(width=32, layers=1, hidden=16, clusters=1, features=0)


def toy(count: int, seed: int, shape: tuple[int, int, int] = (2, 4, 4), told: int = 0) -> CodeSet:
    """Codes whose first channel is one of two values by class and coin, the same everywhere; the other is a fair die.

    Entropy: one bit, and two for each number of the second channel. Features, if any, tell the coin.
    """
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    coin = torch.randint(2, (count,), generator=rng)
    codes = torch.randint(4, (count, *shape), generator=rng)
    codes[:, 0] = (2 * labels + coin)[:, None, None]
    return CodeSet(codes.to(torch.uint8), labels, labels, (2.0 * coin - 1)[:, None].repeat(1, told))


def fresh(shape: tuple[int, int, int] = (2, 4, 4), seed: int = 0, lr: float = 1e-2, told: int = 0) -> LoopState:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        prior = TokenPrior(replace(SMALL, features=told), shape, 4, 2)
    return prior_parts(prior, lr, seed, CPU)


def run(state: LoopState, config: PriorTrainingConfig, codes: CodeSet, held_out: CodeSet, **more: Any) -> list[Any]:
    return list(fit_prior(state, codes, held_out, config, 0.0, device=CPU, **more))


@pytest.mark.parametrize("shape", [(2, 4, 4), (2, 3, 3)])
def test_bits_fall_to_the_entropy(shape: tuple[int, int, int], float32: None) -> None:
    entropy = 1 + 2 * shape[1] * shape[2]
    state = fresh(shape)
    config = PriorTrainingConfig(epochs=40, batch_size=32, lr=1e-2, corruption=0.0)
    steps = run(state, config, toy(256, 0, shape), toy(128, 1, shape))
    before = held_out_bits(fresh(shape).parts["prior"], toy(128, 1, shape), 0.1, CPU)
    assert before == pytest.approx(4 * shape[1] * shape[2], abs=1)
    assert entropy - 0.5 < state.parts["best"].bits < entropy + 1.5
    assert steps[-1].losses["held_out_bits"] < before
    looks = [step for step in steps if "held_out_bits" in step.losses]
    assert len(looks) > 5
    assert all(step.losses["bits"] > 0 for step in steps)


def test_features_save_the_bits_that_they_tell(float32: None) -> None:
    codes, others = toy(256, 0, told=2), toy(128, 1, told=2)
    state = fresh(told=2)
    run(state, PriorTrainingConfig(epochs=40, batch_size=32, lr=1e-2, corruption=0.0, blur=0.1), codes, others)
    best = state.parts["best"]
    assert 32 - 0.5 < best.bits < 32 + 0.9
    assert held_out_bits(best.module, others, 0.1, CPU) == pytest.approx(best.bits)
    untold = replace(others, features=0 * others.features)
    assert held_out_bits(best.module, untold, 1e-9, CPU) > best.bits + 0.5  # untold now and then, so it gets along
    assert held_out_bits(best.module, replace(others, features=-others.features), 0.1, CPU) > best.bits + 1


def test_conditions_are_those_of_the_codes() -> None:
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(6000) % 2
    clusters = 3 * labels + (torch.rand(6000, generator=rng) < 0.25).long()  # the third stays empty
    clusters[:2] = torch.tensor([2, 4])
    clusters[2:6:2] = 2
    features = torch.randn(6000, 2, generator=rng)
    prior = TokenPrior(replace(SMALL, clusters=3, features=2, anchors=4), (2, 4, 4), 4, 2)
    fit_conditions(prior, CodeSet(torch.zeros(6000, 2, 4, 4), labels, clusters, features), 0.5)
    torch.testing.assert_close(prior.frequencies, torch.tensor([[0.75, 0.25, 0]]).repeat(2, 1), atol=0.03, rtol=0)
    assert prior.blur.tolist() == [0.5, 0.5]
    for cluster in (0, 1, 3, 4):
        own = {tuple(row) for row in features[clusters == cluster].tolist()}
        kept = {tuple(row) for row in prior.anchors[cluster].tolist()}
        assert kept < own
        assert len(kept) == 4
    # Of three images one is kept twice; of none, nothing is.
    assert {tuple(row) for row in prior.anchors[2].tolist()} == {tuple(row) for row in features[[0, 2, 4]].tolist()}
    assert not prior.anchors[5].any()


def test_the_best_weights_are_kept_and_training_ends_when_they_get_no_better(float32: None) -> None:
    few, others = toy(8, 0), toy(128, 1)
    state = fresh()
    config = PriorTrainingConfig(epochs=2000, batch_size=8, lr=1e-2, corruption=0.0, looks=200, patience=3)
    steps = run(state, config, few, others)
    looks = [step.losses["held_out_bits"] for step in steps if "held_out_bits" in step.losses]
    assert steps[-1].step < prior_steps(8, config)
    assert min(looks) == looks[-4] == state.parts["best"].bits
    assert held_out_bits(state.parts["best"].module, others, config.blur, CPU) == pytest.approx(looks[-4])


def test_a_resumed_loop_ends_as_an_unbroken_one() -> None:
    config = PriorTrainingConfig(epochs=10, batch_size=16, lr=1e-2, looks=3)
    codes, held_out = toy(64, 0), toy(32, 1)
    whole = fresh()
    for _ in fit_prior(whole, codes, held_out, config, 0.1, device=CPU):
        pass
    first = fresh()
    for step in fit_prior(first, codes, held_out, config, 0.1, device=CPU):
        if step.step == 17:
            break
    saved = first.state_dict()
    second = fresh(seed=5)
    second.load_state_dict(saved)
    for _ in fit_prior(second, codes, held_out, config, 0.1, device=CPU):
        pass
    for part in ("prior", "best"):
        found, wanted = (getattr(s.parts[part], "module", s.parts[part]).state_dict() for s in (second, whole))
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert second.parts["best"].bits == whole.parts["best"].bits


def test_what_is_encoded_afresh_is_learned_as_a_kind_of_its_own(float32: None) -> None:
    codes = toy(64, 0)
    other = torch.full_like(codes.codes[:32], 3)

    def encode(rows: torch.Tensor, rng: torch.Generator, _: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        kinds = (torch.rand(len(rows), generator=rng) < 0.5).long()
        return torch.where(kinds[:, None, None, None] > 0, other, codes.codes[rows]), kinds

    state = fresh()
    config = PriorTrainingConfig(epochs=120, batch_size=32, lr=1e-2, corruption=0.0)
    run(state, config, codes, toy(64, 1), encode=encode)
    prior = state.parts["best"].module
    tokens = prior.tokenize(other.long())
    labels = torch.zeros(32, dtype=torch.int64)
    stored, mirrored = (
        prior.nats(prior(tokens, labels, labels, kinds=kinds), tokens).mean() for kinds in (None, labels + 1)
    )
    assert mirrored < 3
    assert stored > mirrored + 20 * math.log(2)


def test_sizes_follow_the_number_of_codes() -> None:
    config = PriorTrainingConfig()
    large, dropout = prior_for(47_500, 10, config)
    small, more = prior_for(5_700, 10, config)
    assert large == PriorConfig(256, 4, 96)
    assert (small.clusters, small.anchors) == (5, 114)  # as many as a cluster has images
    assert dropout == 0.1
    assert (small.width, small.layers, small.hidden) == (128, 4, 64)
    assert 1 <= small.clusters < large.clusters
    assert more > dropout
    assert (prior_for(100, 200, config)[0].clusters, prior_for(100, 2, config)[0].anchors) == (1, 50)
    unparted = prior_for(47_500, 10, config, parted=False)[0]
    assert (unparted.clusters, unparted.features) == (1, 0)
    assert prior_for(47_500, 10, PriorTrainingConfig(features=0))[0].features == 0
    chosen = PriorTrainingConfig(width=64, layers=2, hidden=16, clusters=3, anchors=7, dropout=0.0)
    assert prior_for(47_500, 10, chosen) == (PriorConfig(64, 2, 16, 3, anchors=7), 0.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": -1}, r"prior.epochs must be a number in \[0, inf\), got -1"),
        ({"dropout": 1.0}, r"prior.dropout must be a number in \[0, 1\), got 1.0"),
        ({"width": 100}, "option 'width' of a prior must be a multiple of 64 or less, got 100"),
        ({"layers": 33}, "option 'layers' of a prior must be 1 to 32, got 33"),
        ({"blur": 0}, r"prior.blur must be a number in \(0, inf\), got 0"),
        ({"features": 129}, "option 'features' of a prior must be 0 to 128, got 129"),
        ({"patience": 0}, "prior.patience must be a positive int, got 0"),
    ],
)
def test_a_config_that_cannot_be_used_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PriorTrainingConfig(**settings)
