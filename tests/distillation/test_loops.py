"""What the loops share, and that each of them goes on after a stop as if there had been none."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest
import torch
from torch import nn

from conftest import TINY, make_data
from dim_data.distillation.adversarial import adversarial_parts, train_adversarial
from dim_data.distillation.choices import AdversarialConfig, MatchingConfig, PoolConfig, ReconstructionConfig
from dim_data.distillation.loops import Ema, StageStep, draw_batch
from dim_data.distillation.matching import match_images, match_labels
from dim_data.distillation.pool import start_pool, warm_pool
from dim_data.distillation.reconstruction import reconstruct, reconstruction_parts
from dim_data.format.config import GeneratorConfig
from dim_data.generator.model import Generator
from dim_data.protocol.states import LoopState

DATA = make_data()
CPU = torch.device("cpu")
POOL = PoolConfig(("resnet10", "convnet3"), (3, 3), ("crop",))


def test_the_average_follows_its_formula() -> None:
    torch.manual_seed(0)
    module = nn.BatchNorm1d(4)
    ema = Ema(module, 0.5)
    expected = {name: t.double() for name, t in module.state_dict().items()}
    for step in range(1, 40):
        module.num_batches_tracked += 2
        for p in (module.weight.data, module.running_mean):
            p.normal_()
        ema.update(module)
        decay = min(0.5, (1 + step) / (10 + step))
        for name, t in module.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * t
            if t.is_floating_point():
                average = ema.module.state_dict()[name].double()
                torch.testing.assert_close(average, expected[name], rtol=1e-4, atol=1e-5)
    assert ema.module.num_batches_tracked == 78
    assert ema.updates == 39
    assert not any(p.requires_grad for p in ema.module.parameters())
    assert all(p.requires_grad for p in module.parameters())


def test_a_constant_is_its_own_average() -> None:
    module = nn.Linear(3, 3)
    ema = Ema(module, 0.999)
    for _ in range(5):
        ema.update(module)
    assert all(torch.equal(a, b) for a, b in zip(ema.module.parameters(), module.parameters(), strict=True))


def test_batches_follow_their_rng_and_pair_images_with_labels() -> None:
    images = DATA.images.clone()
    images[:, 0, 0, 0] = torch.arange(len(DATA)).to(torch.uint8)
    data = type(DATA)(images, DATA.labels, DATA.spec)
    drawn = [draw_batch(data, 200, torch.Generator().manual_seed(1), CPU) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*drawn, strict=True))
    batch, labels = drawn[0]
    numbers = (batch[:, 0, 0, 0] * 255).round().long()
    assert torch.equal(labels, data.labels[numbers])
    torch.testing.assert_close(batch, images[numbers] / 255)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert len(numbers.unique()) > 50
    rng = torch.Generator().manual_seed(1)
    assert not torch.equal(draw_batch(data, 9, rng, CPU)[0], draw_batch(data, 9, rng, CPU)[0])


# Stopping and going on ---------------------------------------------------------------------------------

Loop = Callable[[int], Iterator[StageStep]]


def build(name: str) -> tuple[list[LoopState], Loop]:
    """Fresh states of a loop of six steps, and how to run it up to a step, or to its end."""
    stage, source = name.split("-")
    if stage == "pool":
        state = start_pool(POOL, DATA.spec, 1, CPU)
        return [state], lambda steps: islice(warm_pool(state, DATA, POOL, CPU), steps)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        options = {"width": 4} if source == "dim" else {**TINY, "code_channels": 2}
        kind = {"codes": ("compact", "codes", 3), "noise": ("compact", "noise", 0), "dim": ("dim", "noise", 0)}[source]
        generator = Generator(GeneratorConfig(DATA.spec, kind[0], kind[1], options, kind[2]))
    if stage == "adversarial" or stage == "labels":
        state = adversarial_parts(generator, AdversarialConfig(lr=1e-3, discriminator_width=8), 0.9, 2, CPU)
    else:
        state = reconstruction_parts(generator, 0.9, 2, CPU)
    pool = start_pool(POOL, DATA.spec, 1, CPU)
    common: dict[str, Any] = {"device": CPU, "augmentation": ("flip",)}
    if stage == "reconstruct":
        return [state], lambda steps: reconstruct(state, DATA, ReconstructionConfig(steps, 4, 1e-3), **common)
    if stage == "adversarial":
        return [state], lambda steps: train_adversarial(state, DATA, AdversarialConfig(steps, 4), **common)
    if stage == "images":
        matching = MatchingConfig(6, 4, 1e-3, logit_weight=0.1)
        return [state, pool], lambda steps: islice(match_images(state, pool, DATA, matching, **common), steps)
    aging = replace(POOL, augmentation=("crop", "color", "cutout"), lifetime=2, aging_steps=1)
    return [state, pool], lambda steps: match_labels(
        state, pool, DATA, MatchingConfig(steps, 4, 1e-3, logit_weight=0.1), aging, device=CPU
    )


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        pairs = value.items()
    elif isinstance(value, list | tuple):
        pairs = enumerate(value)
    else:
        return {prefix: value}
    return {k: v for name, part in pairs for k, v in flat(part, f"{prefix}/{name}").items()}


def assert_equal_states(first: LoopState, second: LoopState) -> None:
    one, two = flat(first.state_dict()), flat(second.state_dict())
    assert one.keys() == two.keys()
    for name, value in one.items():
        same = torch.equal(value, two[name]) if isinstance(value, torch.Tensor) else value == two[name]
        assert same, f"{name} differs"


NAMES = ["pool-all", "reconstruct-codes", "adversarial-noise", "adversarial-dim"]
NAMES += ["images-codes", "labels-noise", "labels-dim"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("small_classifiers")
def test_a_stopped_loop_goes_on_as_if_it_had_not_been(name: str) -> None:
    whole, run = build(name)
    losses = [dict(record.losses) for record in run(6)]
    assert len(losses) == 6
    assert whole[0].step == 6

    stopped, run = build(name)
    first = [dict(record.losses) for record in run(3)]
    file = io.BytesIO()
    torch.save([s.state_dict() for s in stopped], file)
    file.seek(0)

    resumed, run = build(name)
    for into, saved in zip(resumed, torch.load(file, weights_only=True), strict=True):
        into.load_state_dict(saved)
    torch.rand(3)
    second = [dict(record.losses) for record in run(6)]
    assert first + second == losses
    for one, two in zip(whole, resumed, strict=True):
        assert_equal_states(one, two)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("small_classifiers")
def test_records_are_numbered_and_finite(name: str) -> None:
    _, run = build(name)
    records = list(run(6))
    assert [record.step for record in records] == [1, 2, 3, 4, 5, 6]
    assert {record.steps for record in records} == {6}
    assert len({record.stage for record in records}) == 1
    assert all(torch.tensor(list(record.losses.values())).isfinite().all() for record in records)
    assert list(run(6)) == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("small_classifiers")
def test_the_global_random_state_is_left_alone(name: str) -> None:
    before = torch.random.get_rng_state()
    _, run = build(name)
    list(run(2))
    assert torch.equal(torch.random.get_rng_state(), before)
