"""What of a preset goes with the size and the number of the images."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from torchvision.transforms.functional import to_pil_image

from conftest import make_data, make_spec
from dim_data import distill
from dim_data.cli.commands import main
from dim_data.distillation import PRESETS, MatchingConfig, PriorTrainingConfig, fit_to_images
from dim_data.distillation import stages as module
from dim_data.format.config import GeneratorConfig
from dim_data.images import LabelledImages
from dim_data.networks import CLASSIFIERS, ConvNet


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("size", [28, 32])
@pytest.mark.parametrize("count", [20_000, 50_000, 10**6])
def test_up_to_32_pixels_a_preset_is_what_it_says(name: str, size: int, count: int) -> None:
    assert fit_to_images(PRESETS[name], make_spec(3, size), count) == PRESETS[name]


@pytest.mark.parametrize(("size", "enough"), [(28, 20_000), (32, 20_000), (36, 5_000), (64, 5_000)])
def test_few_images_are_given_no_prior(size: int, enough: int) -> None:
    noise, spec, count = PRESETS["noise"], make_spec(3, size), enough - 1
    assert fit_to_images(noise, spec, enough).prior == noise.prior
    assert fit_to_images(noise, spec, count) == fit_to_images(
        replace(noise, prior=PriorTrainingConfig(epochs=0)), spec, count
    )
    assert not fit_to_images(noise, spec, count).learns_prior
    assert fit_to_images(noise, spec, count, keep={"prior.epochs"}).prior == noise.prior
    turned = replace(noise, prior=PriorTrainingConfig(turned=True))
    assert fit_to_images(turned, spec, count, keep={"prior.turned"}).prior == turned.prior
    for name in ("default", "paper"):
        assert fit_to_images(PRESETS[name], spec, count).prior == PRESETS[name].prior


@pytest.mark.parametrize("size", [36, 64, 96, 128])
def test_the_papers_recipe_stays_the_papers(size: int) -> None:
    assert fit_to_images(PRESETS["paper"], make_spec(3, size), 6_000) == PRESETS["paper"]


@pytest.mark.parametrize(("classes", "latent_dim"), [(10, None), (11, 101), (100, 190), (1000, 1024)])
@pytest.mark.parametrize("size", [32, 64])
def test_the_papers_noise_grows_with_the_classes(classes: int, latent_dim: int | None, size: int) -> None:
    paper, spec = PRESETS["paper"], make_spec(3, size, classes)
    options = {"latent_dim": latent_dim} if latent_dim else {}
    assert fit_to_images(paper, spec, 6_000) == replace(paper, options=options)
    assert fit_to_images(paper, spec, 6_000, keep={"options.latent_dim"}) == paper
    compact = replace(paper, architecture="compact")
    assert fit_to_images(compact, spec, 6_000) == compact


@pytest.mark.parametrize(("size", "classifier", "batch"), [(64, "convnet4", 32), (128, "convnet5", 16)])
@pytest.mark.parametrize("name", ["default", "noise"])
def test_what_goes_with_the_size(name: str, size: int, classifier: str, batch: int) -> None:
    config, spec = PRESETS[name], make_spec(3, size)
    fitted = fit_to_images(config, spec, 50_000)
    assert (fitted.pool.classifiers, fitted.pool.ages) == ((classifier,), config.pool.ages)
    assert {fitted.matching.batch_size, fitted.reconstruction.batch_size, fitted.refining.batch_size} == {batch}
    assert fitted.matching.steps == config.matching.steps
    assert fit_to_images(config, spec, 10**7) == fitted
    assert fitted.options["smooth"] == 1
    assert (fitted.source, fitted.prior, fitted.seed) == (config.source, config.prior, config.seed)


@pytest.mark.parametrize(
    ("count", "steps", "ages"),
    [(50_000, 4000, (300, 1000, 3000)), (6_000, 1400, (100, 350, 1000)), (5, 1200, (90, 300, 900))],
)
def test_what_goes_with_the_number(count: int, steps: int, ages: tuple[int, ...]) -> None:
    fitted = fit_to_images(PRESETS["default"], make_spec(3, 64), count)
    assert (fitted.matching.steps, fitted.pool.ages) == (steps, ages)


@pytest.mark.parametrize("size", range(28, 129, 4))
def test_every_size_has_a_decoder_whose_codes_grow_with_the_pixels(size: int) -> None:
    spec = make_spec(3, size)
    options = fit_to_images(PRESETS["default"], spec, 100).options
    config = GeneratorConfig(spec, "compact", "codes", {**options, "width": 8, "top_width": 4}, codes=3)
    numbers = module.Generator(config).bank.size
    assert size**2 / numbers == {0: 64 / 24, 1: 64 / 24, 2: 64 / 16}[spec.doublings]


def test_the_readme_states_it() -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in text[text.index("Presets go with the images") :].splitlines()]
    columns: list[list[str]] = []
    for size in (32, 64, 128):
        large, small = (fit_to_images(PRESETS["default"], make_spec(3, size), count) for count in (50_000, 6_000))
        spec = make_spec(3, size)
        bank = module.Generator(GeneratorConfig(spec, "compact", "codes", large.options, codes=3)).bank
        (pool,) = large.pool.classifiers
        facts = (pool.replace("convnet", "ConvNet-"), bank.codes.shape[1], large.matching.batch_size)
        columns.append([f"{fact:,}" if isinstance(fact, int) else fact for fact in facts])
        columns[-1] += [f"{config.matching.steps:,}" for config in (large, small)]
    assert [row[1:] for row in rows[4:9]] == [list(row) for row in zip(*columns, strict=True)]


def test_what_somebody_chose_stays() -> None:
    config = replace(PRESETS["default"], matching=MatchingConfig(batch_size=64), options={"code_channels": 6})
    fitted = fit_to_images(config, make_spec(3, 64), 100, keep={"matching.batch_size", "options.code_channels"})
    assert (fitted.matching.batch_size, fitted.options["code_channels"], fitted.matching.steps) == (64, 6, 1200)
    assert fit_to_images(replace(config, matching=MatchingConfig(steps=0)), make_spec(3, 64), 100).matching.steps == 0


class AskedError(Exception):
    pass


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The configuration of each run, which goes no further."""
    found: list[Any] = []

    def check(data: LabelledImages, config: Any) -> None:
        found.append(config)
        raise AskedError

    monkeypatch.setattr(module, "_check_classes", check)
    return found


@pytest.mark.parametrize("preset", [None, "default", "noise"])
def test_a_preset_by_its_name_is_fitted(preset: str | None, asked: list[Any], tmp_path: Path) -> None:
    data = make_data(channels=3, size=64)
    with pytest.raises(AskedError):
        distill(data, config=preset, out=tmp_path / "run")
    assert asked == [fit_to_images(PRESETS[preset or "default"], data.spec, len(data))]


def test_a_configuration_is_taken_as_it_is(asked: list[Any], tmp_path: Path) -> None:
    with pytest.raises(AskedError):
        distill(make_data(channels=3, size=64), config=PRESETS["default"], out=tmp_path / "run")
    assert asked == [PRESETS["default"]]


@pytest.mark.usefixtures("small_classifiers")
@pytest.mark.parametrize("preset", ["default", "noise"])
def test_the_command_fits_what_it_is_not_told(preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CLASSIFIERS, "convnet4", partial(ConvNet, width=8, depth=4))  # which scores the result
    tiny = ["width=8", "top_width=4", "blocks=1"]
    words = [f"options.{one}" for one in tiny] + ["matching.steps=2", "reconstruction.steps=2", "pool.ages=1"]
    words += ["selection.images=6", "pool.classifiers=resnet10"]
    if preset == "noise":
        words += ["prior.width=16", "prior.layers=1", "prior.hidden=4", "prior.clusters=1", "prior.epochs=1"]
    settings = [part for word in words for part in ("--set", word)]
    folder = tmp_path / "photos"
    data = make_data(channels=3, size=64, per_class=4)
    for index, (image, label) in enumerate(zip(data.images, data.labels.tolist(), strict=True)):
        (folder / f"class{label}").mkdir(parents=True, exist_ok=True)
        to_pil_image(image).save(folder / f"class{label}" / f"{index}.png")
    assert (
        main(["distill", str(folder), "--out", str(tmp_path / "run"), "--device", "cpu", "--preset", preset, *settings])
        == 0
    )
    config = json.loads((tmp_path / "run" / "run.json").read_text())["config"]
    assert (config["matching"]["steps"], config["matching"]["batch_size"]) == (2, 32)
    assert (config["pool"]["classifiers"], config["pool"]["ages"]) == (["resnet10"], [1])
    fitted = fit_to_images(PRESETS["default"], data.spec, 12).options
    assert config["options"] == {**fitted, "width": 8, "top_width": 4, "blocks": 1}
    assert config["selection"] == {"checkpoints": 1, "images": 6}
