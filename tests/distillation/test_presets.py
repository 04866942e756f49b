from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from dim_data.distillation.presets import PRESETS, DistillConfig
from dim_data.format.config import GeneratorConfig
from dim_data.images.specs import KNOWN_SPECS


def test_names() -> None:
    assert list(PRESETS) == ["default", "noise", "paper"]
    assert PRESETS["default"] == DistillConfig()
    assert (PRESETS["default"].source, PRESETS["noise"].source) == ("codes", "noise")


@pytest.mark.parametrize("name", PRESETS)
def test_json_round_trip(name: str) -> None:
    config = PRESETS[name]
    assert DistillConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    changed = dataclasses.replace(config, options={"width": 8}, seed=3)
    assert DistillConfig.from_dict(json.loads(json.dumps(changed.to_dict()))) == changed
    assert set(config.to_dict()) == {f.name for f in dataclasses.fields(DistillConfig)}


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("spec", KNOWN_SPECS.values(), ids=KNOWN_SPECS)
def test_a_preset_names_a_generator_that_exists(name: str, spec: Any) -> None:
    config = PRESETS[name]
    codes = spec.num_classes if config.source == "codes" else 0
    GeneratorConfig(spec, config.architecture, config.source, config.options, codes)


def test_the_papers_schedule() -> None:
    paper = PRESETS["paper"]
    assert (paper.architecture, paper.first, paper.discriminator_width) == ("dim", "adversarial", 196)
    assert paper.first_steps * paper.first_batch == pytest.approx(150 * 50_000, rel=1e-3)
    assert paper.matching_steps * paper.matching_batch == pytest.approx(100 * 50_000, rel=2e-3)
    assert (paper.first_lr, paper.matching_lr, paper.logit_weight) == (1e-4, 5e-6, 0.01)
    assert (paper.pool_aging, paper.pool_lifetime * paper.matching_batch) == (16, pytest.approx(50_000, rel=2e-3))
    assert sorted(paper.pool_augmentation) == ["color", "crop", "cutout"]
    assert len(paper.pool) == 5


def test_unknown_settings_raise() -> None:
    with pytest.raises(ValueError, match=r"unknown distillation settings \['epochs', 'steps'\]"):
        DistillConfig.from_dict({"steps": 3, "epochs": 1, "seed": 0})
    assert DistillConfig.from_dict({"seed": 4}) == DistillConfig(seed=4)


POSITIVE = ["first_steps", "first_batch", "matching_batch", "pool_lifetime", "discriminator_width", "selection_images"]
COUNTS = ["matching_steps", "pool_aging", "selections", "max_codes"]
TUPLES = ["pool", "pool_ages", "augmentation", "pool_augmentation"]
WEIGHTS = ["logit_weight"]


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        *((name, 0, f"{name} must be a positive int, got 0") for name in POSITIVE),
        *((name, 1.5, f"{name} must be a positive int, got 1.5") for name in POSITIVE),
        *((name, True, f"{name} must be a positive int, got True") for name in POSITIVE),
        *((name, -1, f"{name} must be an int of at least 0, got -1") for name in COUNTS),
        *((name, "3", f"{name} must be an int of at least 0, got '3'") for name in COUNTS),
        *((name, 0, rf"{name} must be in \(0, 1\), got 0") for name in ("first_lr", "matching_lr")),
        *((name, 1.0, rf"{name} must be in \(0, 1\), got 1.0") for name in ("first_lr", "matching_lr")),
        *((name, float("nan"), rf"{name} must be in \(0, 1\), got nan") for name in ("first_lr", "matching_lr")),
        *((name, 1.0, rf"{name} must be in \[0, 1\), got 1.0") for name in ("ema", "holdout")),
        *((name, "0.5", rf"{name} must be in \[0, 1\), got '0.5'") for name in ("ema", "holdout")),
        *((name, -1, f"{name} must be a finite number of at least 0, got -1") for name in WEIGHTS),
        *((name, float("inf"), f"{name} must be a finite number of at least 0, got inf") for name in WEIGHTS),
        *((name, ["flip"], rf"{name} must be a tuple, got \['flip'\]") for name in TUPLES),
        *((name, "flip", f"{name} must be a tuple, got 'flip'") for name in TUPLES),
        ("pool", (), "pool and pool_ages must name at least one member, of age 0 or more"),
        ("pool_ages", (), "pool and pool_ages must name at least one member, of age 0 or more"),
        ("pool_ages", (3, -1), "pool and pool_ages must name at least one member, of age 0 or more"),
        ("pool", ("convnet3", "vgg"), r"unknown name 'vgg': choose from \['convnet3', 'resnet10'"),
        ("augmentation", ("rotate",), r"unknown name 'rotate': choose from \['color', 'crop', 'cutout', 'flip'\]"),
        ("pool_augmentation", ("rotate",), "unknown name 'rotate': choose from"),
        ("seed", 0.5, "seed must be an int, got 0.5"),
        ("seed", None, "seed must be an int, got None"),
        ("source", "dream", "source must be 'noise' or 'codes', got 'dream'"),
        ("rank", 0, "rank must be a positive int, got 0"),
        ("first", "diffusion", "first must be 'adversarial' or 'reconstruction', got 'diffusion'"),
        ("first", "adversarial", "stored codes come from first='reconstruction'; an adversarial generator draws noise"),
        ("architecture", "dim", "architecture 'dim' is trained by first='adversarial'; reconstruction needs 'compact'"),
    ],
)
def test_bad_fields_raise(field: str, value: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        DistillConfig(**{field: value})


def test_a_config_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        PRESETS["default"].seed = 3  # type: ignore[misc]
