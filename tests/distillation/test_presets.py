from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import pytest

from dim_data.distillation.choices import (
    AdversarialConfig,
    LabelsConfig,
    MatchingConfig,
    PoolConfig,
    ReconstructionConfig,
    RefiningConfig,
    SelectionConfig,
)
from dim_data.distillation.presets import PRESETS, DistillConfig
from dim_data.format.config import GeneratorConfig
from dim_data.generator.facts import describe
from dim_data.generator.model import Generator
from dim_data.generator.names import bundled_names
from dim_data.hub.card import render_card
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
    assert set(config.to_dict()) - set(config.to_record()) == set(config.unread)
    assert DistillConfig.from_dict(json.loads(json.dumps(config.to_record()))) == config


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("spec", KNOWN_SPECS.values(), ids=KNOWN_SPECS)
def test_a_preset_names_a_generator_that_exists(name: str, spec: Any) -> None:
    config = PRESETS[name]
    codes = spec.num_classes if config.source == "codes" else 0
    GeneratorConfig(spec, config.architecture, config.source, config.options, codes)


def test_the_papers_schedule() -> None:
    paper = PRESETS["paper"]
    game, matching, pool = paper.adversarial, paper.matching, paper.pool
    assert (paper.architecture, paper.first, game.discriminator_width) == ("dim", "adversarial", 196)
    assert game.steps * game.batch_size == pytest.approx(150 * 50_000, rel=1e-3)
    assert matching.steps * matching.batch_size == pytest.approx(100 * 50_000, rel=2e-3)
    assert (game.lr, matching.lr, matching.logit_weight) == (1e-4, 5e-6, 0.01)
    assert (pool.aging_steps, pool.lifetime * matching.batch_size) == (16, pytest.approx(50_000, rel=2e-3))
    assert sorted(pool.augmentation) == ["color", "crop", "cutout"]
    assert (len(pool.classifiers), pool.ages) == (5, (0,) * 5)


def test_what_the_default_trains() -> None:
    config = PRESETS["default"]
    assert config.reconstruction == ReconstructionConfig(steps=400, batch_size=64, lr=1e-2)
    assert config.matching == MatchingConfig(steps=4000, batch_size=64, lr=1e-2, logit_weight=0.05)
    assert config.pool == PoolConfig(("convnet3",), (300, 1000, 3000), ("flip",), lifetime=1, aging_steps=0)
    assert config.selection == SelectionConfig(checkpoints=2, images=20_000)
    assert (config.labels, config.refining) == (LabelsConfig(False, 2.0), RefiningConfig(0, 64))
    assert (config.rank, config.max_codes, config.ema, config.holdout, config.seed) == (128, 0, 0.999, 0.05, 0)
    assert PRESETS["noise"] == dataclasses.replace(config, source="noise")


def test_what_is_left_out_is_as_in_the_default() -> None:
    assert DistillConfig.from_dict({"seed": 4}) == DistillConfig(seed=4)
    assert DistillConfig.from_dict({"matching": {"steps": 3}}) == DistillConfig(matching=MatchingConfig(steps=3))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"steps": 3, "epochs": 1, "seed": 0},
            r"unknown distillation settings \['epochs', 'steps'\]: choose from ",
        ),
        (
            {"first_steps": 3},
            r"unknown .* \['first_steps'\]: choose from \['architecture', .*'matching', ",
        ),
        (
            {"matching": {"step": 3}},
            r"\['matching.step'\]: choose from \['matching.steps', 'matching.batch_size', 'matching.lr', 'matching.log",
        ),
        ({"matching": 3}, "matching must be a mapping of settings, got 3"),
        ({"matching": None}, "matching must be a mapping of settings, got None"),
        ([], r"a configuration must be a mapping of settings, got \[\]"),
    ],
)
def test_unknown_settings_raise(values: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        DistillConfig.from_dict(values)


@pytest.mark.parametrize(
    ("values", "error", "sentence"),
    [
        ({"architecture": "gan"}, ValueError, "unknown architecture 'gan'"),
        ({"options": {"depth": 3}}, ValueError, r"architecture 'compact' has no option 'depth': choose from \["),
        ({"options": {"width": 8.0}}, TypeError, "option 'width' .* must be an int, got 8.0"),
        ({"options": [8]}, TypeError, "options must be a mapping"),
    ],
)
def test_options_of_the_architecture_are_checked_before_anything_is_read(
    values: Any, error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        DistillConfig.from_dict(values)


POSITIVE = ["reconstruction.steps", "reconstruction.batch_size", "adversarial.steps", "adversarial.batch_size"]
POSITIVE += ["adversarial.discriminator_width", "matching.batch_size", "pool.lifetime", "selection.images"]
POSITIVE += ["refining.batch_size", "rank"]
COUNTS = ["matching.steps", "pool.aging_steps", "selection.checkpoints", "refining.looks", "max_codes"]
TUPLES = ["pool.classifiers", "pool.augmentation", "augmentation"]
RATES = ["reconstruction.lr", "adversarial.lr", "matching.lr"]


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        *((name, 0, "must be a positive int, got 0") for name in POSITIVE),
        *((name, 1.5, "must be a positive int, got 1.5") for name in POSITIVE),
        *((name, True, "must be a positive int, got True") for name in POSITIVE),
        *((name, -1, "must be an int of at least 0, got -1") for name in COUNTS),
        *((name, "3", "must be an int of at least 0, got '3'") for name in COUNTS),
        *((name, 0, "must be a number in (0, 1), got 0") for name in RATES),
        *((name, 1.0, "must be a number in (0, 1), got 1.0") for name in RATES),
        *((name, float("nan"), "must be a number in (0, 1), got nan") for name in RATES),
        *((name, 1.0, "must be a number in [0, 1), got 1.0") for name in ("ema", "holdout")),
        *((name, "0.5", "must be a number in [0, 1), got '0.5'") for name in ("ema", "holdout")),
        ("matching.logit_weight", -1, "must be a number in [0, inf), got -1"),
        ("matching.logit_weight", float("inf"), "must be a number in [0, inf), got inf"),
        *((name, 3, "must be a tuple, got 3") for name in TUPLES),
        *((name, "flip", "must be a tuple, got 'flip'") for name in TUPLES),
        ("pool.classifiers", (), "and pool.ages must name at least one member"),
        ("pool.ages", (3, -1), "must be a tuple of ints of at least 0, got (3, -1)"),
        ("pool.ages", 3, "must be a tuple of ints of at least 0, got 3"),
        ("pool.classifiers", ("convnet3", "vgg"), "has an unknown name 'vgg': choose from ['convnet3', 'convnet4'"),
        ("augmentation", ("rotate",), "has an unknown name 'rotate': choose from ['color', 'crop', 'cutout', 'flip']"),
        ("pool.augmentation", ("rotate",), "has an unknown name 'rotate': choose from"),
        ("labels.soft", 1, "must be True or False, got 1"),
        ("seed", 0.5, "must be an int of at least"),
        ("seed", None, "must be an int of at least"),
        ("seed", 1 << 63, f"must be an int of 64 bits, got {1 << 63}"),
        ("rank", 1025, "must be at most 1024, got 1025"),
        (
            "pool.classifiers",
            ("convnet3", "resnet10", "resnet18", "convnet4"),
            "names 4 and pool.ages has 3: there is one member for each age, so that the rest would not be read",
        ),
        ("source", "dream", "must be 'noise' or 'codes', got 'dream'"),
        ("first", "diffusion", "must be 'adversarial' or 'reconstruction', got 'diffusion'"),
    ],
)
def test_bad_fields_raise(field: str, value: Any, sentence: str) -> None:
    stage, _, name = field.rpartition(".")
    with pytest.raises(ValueError, match=re.escape(f"{field} {sentence}")):
        DistillConfig.from_dict({stage: {name: value}} if stage else {name: value})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"first": "adversarial"},
            "stored codes come from first='reconstruction'; an adversarial generator draws noise",
        ),
        ({"architecture": "dim"}, "architecture 'dim' is trained by first='adversarial'; reconstruction needs"),
        ({"matching": {"steps": 3}}, "matching must be a MatchingConfig, got {'steps': 3}"),
        ({"pool": ReconstructionConfig()}, "pool must be a PoolConfig, got ReconstructionConfig"),
        ({"pool": ("convnet3",)}, "pool must be a PoolConfig, got"),
    ],
)
def test_what_does_not_fit_together_raises(changes: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        DistillConfig(**changes)


GAME = {"first": "adversarial", "source": "noise"}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"adversarial": AdversarialConfig(steps=3)}, "adversarial.* is set, and would not be read: first is 'recon"),
        (
            {"first": "adversarial", "source": "noise", "reconstruction": ReconstructionConfig(lr=0.1)},
            "reconstruction.* is set, and would not be read: first is 'adversarial'",
        ),
        ({"pool": PoolConfig(lifetime=3)}, "pool.lifetime and pool.aging_steps are set, and would not be read"),
        ({"pool": PoolConfig(aging_steps=3)}, "pool.lifetime and pool.aging_steps are set, and would not be read"),
        ({"rank": 100}, "rank is set, and would not be read: it needs source='noise', first='reconstruction'"),
        ({**GAME, "rank": 100}, "rank is set, and would not be read: it needs source='noise', first='reconstruction'"),
        ({**GAME, "max_codes": 100}, "max_codes is set, and would not be read: it needs first='reconstruction'"),
    ],
)
def test_what_would_not_be_read_is_not_taken(changes: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        DistillConfig(**changes)


def test_what_has_an_effect_is_taken() -> None:
    for changes in ({"rank": 100, "max_codes": 9, "source": "noise"}, {"rank": 1024, "source": "noise"}):
        assert DistillConfig(**changes)
    assert DistillConfig(max_codes=9, seed=(1 << 63) - 1)


@pytest.mark.parametrize("name", bundled_names())
def test_how_the_bundled_generators_were_made_stays_readable(name: str) -> None:
    """Older files have one flat configuration, as runs wrote it once."""
    generator = Generator.from_pretrained(name)
    training = describe(generator, generator.folder)["training"]
    config = training["config"]
    assert config.get("matching_steps") or DistillConfig.from_dict(config).matching.steps
    assert "images shown" in render_card("user/repo", generator.config, size=1, training=training)


@pytest.mark.parametrize("config", [{"first": "adversarial", "first_steps": 3}, PRESETS["paper"].to_dict()])
def test_a_card_knows_the_game_in_old_and_new_files(config: dict[str, Any], tiny_noise: Generator) -> None:
    for told in (config, {**config, "first": "reconstruction"}):
        card = render_card("user/repo", tiny_noise.config, size=1, training={"config": told})
        assert ("- gan" in card) == (told["first"] == "adversarial")


def test_a_config_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        PRESETS["default"].seed = 3  # type: ignore[misc]
