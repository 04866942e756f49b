from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from conftest import TINY, make_data
from dim_data.distillation import matching
from dim_data.distillation.adversarial import adversarial_parts
from dim_data.distillation.choices import AdversarialConfig, MatchingConfig, PoolConfig, ReconstructionConfig
from dim_data.distillation.matching import feature_distance, feature_errors, logit_distance, match_images, match_labels
from dim_data.distillation.pool import start_pool, warm_pool
from dim_data.distillation.reconstruction import reconstruct, reconstruction_parts
from dim_data.format.config import GeneratorConfig
from dim_data.generator.model import Generator
from dim_data.networks.classifiers import ResNet
from dim_data.protocol.states import LoopState

DATA = make_data()
CPU = torch.device("cpu")


# Distances ---------------------------------------------------------------------------------------------


def log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits - logits.max(1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def test_logit_distance() -> None:
    real, fake = torch.randn(6, 5) * 3, torch.randn(6, 5) * 3
    expected = np.mean((log_softmax(real.double().numpy()) - log_softmax(fake.double().numpy())) ** 2)
    assert logit_distance(real, fake).item() == pytest.approx(expected, rel=1e-4)
    assert logit_distance(real, real) == 0
    assert logit_distance(real, real + 7).item() == pytest.approx(0, abs=1e-9)
    torch.testing.assert_close(logit_distance(real, fake), logit_distance(fake, real))


def relative(real: np.ndarray, fake: np.ndarray) -> float:
    return float(((real - fake) ** 2).sum() / (real**2).sum())


def features(seed: int) -> list[Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(6, 4, 7, 7, generator=rng) * 5, torch.randn(6, 9, generator=rng)]


def test_feature_distance() -> None:
    real, fake = features(0), features(1)
    expected = sum(relative(a.double().numpy(), b.double().numpy()) for a, b in zip(real, fake, strict=True))
    assert feature_distance(*feature_errors(real, fake)).item() == pytest.approx(expected, rel=1e-4)
    assert feature_distance(*feature_errors(real, real)) == 0
    scaled = [[x * 10 for x in part] for part in (real, fake)]
    assert feature_distance(*feature_errors(*scaled)).item() == pytest.approx(expected, rel=1e-4)
    dead = [torch.zeros(2, 3)]
    assert feature_distance(*feature_errors(dead, dead)) == 0
    with pytest.raises(ValueError, match="zip"):
        feature_errors(real, fake[:1])


# Loops -------------------------------------------------------------------------------------------------


def start(device: torch.device = CPU) -> LoopState:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = Generator(GeneratorConfig(DATA.spec, "compact", "codes", TINY, 3)).to(device)
    return reconstruction_parts(generator, 0.9, 1, device)


def warmed(names: tuple[str, ...], ages: tuple[int, ...], device: torch.device = CPU) -> LoopState:
    config = PoolConfig(names, ages, ())
    state = start_pool(config, DATA.spec, 0, device)
    list(warm_pool(state, DATA.to(device), config, device, batch_size=12))
    return state


@pytest.mark.usefixtures("small_classifiers")
def test_matching_brings_logits_and_features_together(device: torch.device) -> None:
    state, pool, data = start(device=device), warmed(("convnet3",), (10, 10), device), DATA.to(device)
    common: dict[str, Any] = {"augmentation": (), "device": device}
    list(reconstruct(state, data, ReconstructionConfig(10, 8, 1e-2), **common))
    state.step = 0
    records = list(match_images(state, pool, data, MatchingConfig(100, 8, 5e-3, logit_weight=0.1), **common))
    for name, share in (("logits", 0.3), ("features", 0.7), ("pixels", 0.8)):
        losses = [record.losses[name] for record in records]
        assert sum(losses[-10:]) < share * sum(losses[:10]), name
    assert {frozenset(record.losses) for record in records} == {frozenset({"pixels", "features", "logits"})}
    assert {record.stage for record in records} == {"matching"}
    rate = state.parts["optimizer"].param_groups[0]["lr"]
    assert rate == pytest.approx(5e-3 / 100)


@pytest.mark.usefixtures("small_classifiers")
def test_members_do_not_change_in_match_images_and_are_asked_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, asked = warmed(("convnet3", "resnet10"), (2, 2, 2)), []
    members = pool.parts["pool"]
    before, momenta = copy.deepcopy(members.state_dict()), copy.deepcopy(pool.parts["optimizer"].state_dict())
    for index, member in enumerate(members):
        member.train()
        original = member.features
        monkeypatch.setattr(member, "features", lambda x, i=index, f=original: asked.append(i) or f(x))
    list(match_images(start(), pool, DATA, MatchingConfig(5, 8, 1e-3), augmentation=(), device=CPU))
    assert asked == [i for i in (0, 1, 2, 0, 1) for _ in range(2)]
    assert all(torch.equal(t, before[name]) for name, t in members.state_dict().items())
    assert str(pool.parts["optimizer"].state_dict()) == str(momenta)
    assert not any(m.training for member in members for m in member.modules())


def moved(state: LoopState, fresh: LoopState, name: str) -> bool:
    pairs = zip(state.parts[name].parameters(), fresh.parts[name].parameters(), strict=True)
    return any(not torch.equal(a, b) for a, b in pairs)


@pytest.mark.usefixtures("small_classifiers")
@pytest.mark.parametrize("change", [{"logit_weight": 1.0}, {"lr": 1e-2}, {"augmentation": ("flip",)}])
def test_every_setting_counts(change: dict[str, Any]) -> None:
    pool = warmed(("convnet3",), (2,))
    settings = {"lr": 1e-3, "logit_weight": 0.1, "augmentation": ()}
    plain, changed = start(), start()
    for state, values in ((plain, settings), (changed, {**settings, **change})):
        augmentation = values.pop("augmentation")
        list(match_images(state, pool, DATA, MatchingConfig(3, 8, **values), augmentation=augmentation, device=CPU))
    for name in ("generator", "encoder"):
        assert moved(changed, plain, name)


def game() -> LoopState:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = Generator(GeneratorConfig(DATA.spec, "compact", "noise", TINY))
    return adversarial_parts(generator, AdversarialConfig(discriminator_width=8), 0.9, 1, CPU)


GAME = PoolConfig(("resnet10",), (0, 0), ("crop", "cutout"))


@pytest.mark.usefixtures("small_classifiers")
def test_a_member_lives_for_its_lifetime_and_then_the_next_has_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, renewed, aged = start_pool(GAME, DATA.spec, 0, CPU), [], []
    renew, age = matching.reset_member, matching.age_member
    monkeypatch.setattr(matching, "reset_member", lambda state, i: renewed.append((len(aged), i)) or renew(state, i))
    monkeypatch.setattr(
        matching, "age_member", lambda state, i, *rest: aged.append((i, rest[2])) or age(state, i, *rest)
    )
    config = replace(GAME, lifetime=3, aging_steps=2)
    records = list(match_labels(game(), pool, DATA, MatchingConfig(7, 4), config, device=CPU))
    assert renewed == [(6, 0)]
    assert aged == [(i, 2) for i in (0, 0, 0, 1, 1, 1, 0)]
    assert [m.stem[1].num_batches_tracked.item() for m in pool.parts["pool"]] == [2, 6]
    assert all("logits" in record.losses and record.losses["logits"] >= 0 for record in records)
    assert {record.stage for record in records} == {"matching"}


@pytest.mark.usefixtures("small_classifiers")
def test_the_weight_counts_and_members_learn_from_real_images_alone() -> None:
    pools, states, config = [], [], replace(GAME, ages=(0,), lifetime=10, aging_steps=1)
    for weight in (0.0, 100.0):
        pools.append(start_pool(config, DATA.spec, 0, CPU))
        states.append(game())
        matching = MatchingConfig(3, 4, logit_weight=weight)
        list(match_labels(states[-1], pools[-1], DATA, matching, config, device=CPU))
    assert moved(states[0], states[1], "generator")
    first, second = (pool.parts["pool"].state_dict() for pool in pools)
    assert all(torch.equal(t, second[name]) for name, t in first.items())


def test_pairs_are_of_one_class_and_share_their_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Tensor] = []

    class Watcher(nn.Module):
        def __init__(self, spec: Any) -> None:
            super().__init__()
            self.net = ResNet(spec, 1, 8)

        def forward(self, images: Tensor) -> Tensor:
            shown.append(images.detach())
            return self.net(images)

    monkeypatch.setitem(matching.__dict__, "age_member", lambda *args: None)
    monkeypatch.setattr("dim_data.distillation.pool.build_classifier", lambda name, spec: Watcher(spec))
    config = replace(GAME, ages=(0,), augmentation=("cutout",), lifetime=10)
    pool = start_pool(config, DATA.spec, 0, CPU)
    shown.clear()  # less the noise that it is tried on
    list(match_labels(game(), pool, DATA, MatchingConfig(2, 4), config, device=CPU))
    assert len(shown) == 4
    for real, fake in (shown[:2], shown[2:]):
        zero = DATA.spec.normalize(torch.zeros(1, 1, 1, 1))
        holes = [(x - zero).abs() < 1e-6 for x in (real, fake)]
        assert holes[1].any()
        assert (holes[0] & holes[1] == holes[1]).all()
