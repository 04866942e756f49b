"""A smaller decoder that paints the same latents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import SMALL_CLASSIFIERS, TINY, make_data, make_generator, stopping
from dim_data import Generator, GeneratorConfig, StoppedError
from dim_data.distillation import StageStep, slim_decoder
from dim_data.networks import PriorConfig

DATA = make_data(3, 32, per_class=10)
LARGE, SMALL = {**TINY, "width": 16, "code_channels": 3}, {"width": 8}
PRIOR = PriorConfig(width=8, layers=1, hidden=4, clusters=1, features=0)
CONFIGS = {
    "codes": GeneratorConfig(DATA.spec, "compact", "codes", LARGE, codes=30, soft_labels=True),
    "gaussian": GeneratorConfig(DATA.spec, "compact", "noise", LARGE, rank=2, soft_labels=True),
    "prior": GeneratorConfig(DATA.spec, "compact", "noise", LARGE, prior=PRIOR),
    "noise": GeneratorConfig(DATA.spec, "compact", "noise", LARGE),
}
LABELS, SERIALS = torch.arange(24) % 3, torch.arange(24) // 3


@pytest.fixture(scope="module")
def classifiers() -> list[torch.nn.Module]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return [build(DATA.spec) for build in SMALL_CLASSIFIERS.values()]


def slim(generator: Generator, *args: Any, **options: Any) -> Generator:
    return slim_decoder(generator, SMALL, *args, **{"steps": 8, "batch_size": 4, "device": "cpu", **options})


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_latents_and_labels_stay_and_pictures_come_closer(
    kind: str, classifiers: list[torch.nn.Module], tmp_path: Path
) -> None:
    large = make_generator(CONFIGS[kind])
    before = {name: tensor.clone() for name, tensor in large.state_dict().items()}
    steps: list[StageStep] = []
    small = slim(large, classifiers, steps=150, batch_size=16, lr=6e-2, on_step=steps.append)
    assert small.config.options == {**LARGE, "width": 8}
    assert sum(p.numel() for p in small.decoder.parameters()) < sum(p.numel() for p in large.decoder.parameters())
    assert torch.equal(small.latents(LABELS, SERIALS), large.latents(LABELS, SERIALS))
    if small.config.soft_labels and kind == "codes":
        assert torch.equal(small.soft_labels(LABELS, SERIALS), large.soft_labels(LABELS, SERIALS))
    if kind == "gaussian":
        theirs = small.teacher.state_dict().values()
        assert all(torch.equal(a, b) for a, b in zip(large.teacher.state_dict().values(), theirs, strict=True))
    wanted = large.synthesize(LABELS, SERIALS).float()
    fresh = large.with_decoder(SMALL)
    far, near = ((one.synthesize(LABELS, SERIALS).float() - wanted).abs().mean() for one in (fresh, small))
    assert near < 0.8 * far
    assert [step.step for step in steps] == list(range(1, 151))
    assert set(steps[0].losses) == {"pixels", "features", "logits"}
    assert all(torch.equal(before[name], tensor) for name, tensor in large.state_dict().items())
    assert not any(p.requires_grad for p in small.parameters())
    assert not small.training
    assert Generator.from_pretrained(small.save_pretrained(tmp_path)).config == small.config


def test_without_classifiers_pixels_alone_are_compared() -> None:
    steps: list[StageStep] = []
    slim(make_generator(CONFIGS["codes"]), on_step=steps.append)
    assert [set(step.losses) for step in steps] == [{"pixels"}] * 8


def test_it_goes_on_where_it_was_stopped(classifiers: list[torch.nn.Module], tmp_path: Path) -> None:
    large, path = make_generator(CONFIGS["codes"]), tmp_path / "slim.pt"
    whole = slim(large, classifiers)
    with pytest.raises(StoppedError, match="step 3 of 8"):
        slim(large, classifiers, checkpoint=path, **stopping("slimming", 3))
    with pytest.raises(ValueError, match="seed"):
        slim(large, classifiers, checkpoint=path, seed=1)
    for trained in ([4, 5, 6, 7, 8], []):  # whoever called it knows when the result is safe
        steps: list[StageStep] = []
        parts = slim(large, classifiers, checkpoint=path, on_step=steps.append)
        assert [step.step for step in steps] == trained
        assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))
        assert path.exists()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"code_channels": 4}, "change the latents"),
        ({"code_levels": 3}, "change the latents"),  # as many bits, other numbers
        ({"width": 4}, "width"),
        ({"wide": 8}, "wide"),
    ],
)
def test_options_that_are_no_such_decoders_are_refused(options: dict[str, int], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        slim_decoder(make_generator(CONFIGS["codes"]), options, steps=1, device="cpu")


@pytest.mark.parametrize("name", ["steps", "batch_size", "lr"])
def test_numbers_out_of_range_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        slim(make_generator(CONFIGS["codes"]), **{name: 0})
