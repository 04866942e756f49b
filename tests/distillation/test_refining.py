"""Codes searched until their pictures agree with their images."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from conftest import SMALL_CLASSIFIERS, TINY, make_data, make_generator, make_spec
from dim_data import Generator, GeneratorConfig
from dim_data.distillation.loops import StageStep
from dim_data.distillation.matching import feature_distance, feature_errors
from dim_data.distillation.refining import refine_codes, relabel_codes
from dim_data.format.latents import pack
from dim_data.images.real import LabelledImages

DATA = make_data(3, 32, per_class=10)


@pytest.fixture(scope="module", params=[2, 4, 16])
def generator(request: pytest.FixtureRequest) -> Generator:
    options = {**TINY, "code_levels": request.param, "code_channels": 3}
    return make_generator(GeneratorConfig(DATA.spec, "compact", "codes", options, codes=30))


@pytest.fixture(scope="module")
def images(generator: Generator) -> LabelledImages:
    """Images that the decoder can paint: those of other codes, in another order than the bank's."""
    rng = torch.Generator().manual_seed(1)
    labels = torch.arange(30) % 3
    latents = torch.rand(30, *generator.decoder.latent_shape, generator=rng) * 2 - 1
    painted = generator(generator.bank.unpack(generator.bank.pack(latents)), labels).clamp(0, 1)
    return LabelledImages((painted * 255).round().to(torch.uint8), labels, DATA.spec)


@pytest.fixture(scope="module")
def classifiers() -> list[torch.nn.Module]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return [build(DATA.spec) for build in SMALL_CLASSIFIERS.values()]


def pictures(generator: Generator, images: LabelledImages) -> torch.Tensor:
    """The generator's picture of each image."""
    found = torch.empty_like(images.images)
    found[images.labels.argsort(stable=True)] = generator.decode(torch.arange(len(images)))
    return found.float() / 255


def test_each_picture_comes_closer_to_its_own_image(
    generator: Generator, images: LabelledImages, classifiers: list[torch.nn.Module]
) -> None:
    codes, weights = generator.bank.codes.clone(), [p.clone() for p in classifiers[0].parameters()]
    refined = refine_codes(generator, images, classifiers, looks=12, device="cpu")
    wanted = images.images.float() / 255
    first, last = ((pictures(g, images) - wanted).abs().mean((1, 2, 3)) for g in (generator, refined))
    assert last.mean() < 0.8 * first.mean()
    assert (last < first).float().mean() > 0.9
    real = classifiers[0].features(wanted)
    before_it, after_it = (
        feature_distance(*feature_errors(real, classifiers[0].features(pictures(g, images))))
        for g in (generator, refined)
    )
    assert after_it < 0.8 * before_it
    assert torch.equal(generator.bank.codes, codes)
    assert all(torch.equal(p, q) for p, q in zip(weights, classifiers[0].parameters(), strict=True))
    assert refined.config == generator.config
    assert not refined.training
    assert all(
        torch.equal(p, q) for p, q in zip(refined.decoder.parameters(), generator.decoder.parameters(), strict=True)
    )


def test_images_go_to_codes_of_their_class_by_its_name(
    generator: Generator, images: LabelledImages, classifiers: list[torch.nn.Module]
) -> None:
    first, second, third = generator.spec.classes
    renamed = replace(images, labels=(images.labels + 1) % 3, spec=replace(DATA.spec, classes=(third, first, second)))
    as_a_folder_has_it = renamed.subset(renamed.labels.argsort(stable=True))
    wanted, *found = (
        refine_codes(generator, data, classifiers, looks=3, device="cpu").bank.codes
        for data in (images, renamed, as_a_folder_has_it)
    )
    assert all(torch.equal(codes, wanted) for codes in found)
    strangers = replace(images, spec=replace(DATA.spec, classes=("a", "b", "c")))
    with pytest.raises(ValueError, match="has no class 'a', 'b', 'c'"):
        refine_codes(generator, strangers, classifiers, device="cpu")


def test_codes_stay_on_their_levels(
    generator: Generator, images: LabelledImages, classifiers: list[torch.nn.Module]
) -> None:
    refined = refine_codes(generator, images, classifiers, looks=3, device="cpu")
    assert refined.bank.codes.shape == generator.bank.codes.shape
    latents = refined.bank.unpack(refined.bank.codes)
    assert latents.abs().max() <= 1
    assert torch.equal(pack(latents, generator.bank.levels), refined.bank.codes)
    assert not torch.equal(refined.bank.codes, generator.bank.codes)


def test_one_look_changes_a_tenth_of_a_code_by_one_level(
    generator: Generator, images: LabelledImages, classifiers: list[torch.nn.Module]
) -> None:
    refined = refine_codes(generator, images, classifiers[:1], looks=1, device="cpu")
    step = 2 / (generator.bank.levels - 1)
    moved = (
        (refined.bank.unpack(refined.bank.codes) - generator.bank.unpack(generator.bank.codes)).flatten(1) / step
    ).abs()
    torch.testing.assert_close(moved, moved.round(), atol=1e-4, rtol=0)
    assert moved.max() < 1.5
    assert (moved.round().sum(1) - 0.1 * moved.shape[1]).abs().max() <= 1


def test_soft_labels_stay(images: LabelledImages, classifiers: list[torch.nn.Module], generator: Generator) -> None:
    given = torch.rand(30, 3, generator=torch.Generator().manual_seed(2))
    latents = generator.bank.unpack(generator.bank.codes)
    labels = torch.repeat_interleave(generator.bank.counts)
    soft = generator.store(latents, labels, given / given.sum(1, keepdim=True))
    refined = refine_codes(soft, images, classifiers, looks=1, device="cpu")
    assert torch.equal(refined.bank.soft, soft.bank.soft)


def test_progress_is_told(generator: Generator, images: LabelledImages, classifiers: list[torch.nn.Module]) -> None:
    steps: list[StageStep] = []
    refine_codes(generator, images, classifiers, looks=1, device="cpu", on_step=steps.append)
    assert [(s.stage, s.step, s.steps) for s in steps] == [("refining", 1, 1)]
    assert steps[0].losses["refining"] > 0


def test_what_cannot_be_refined_is_refused(
    tiny_noise: Generator, generator: Generator, images: LabelledImages, classifiers: list[torch.nn.Module]
) -> None:
    def refused(sentence: str, source: Generator, data: LabelledImages, nets: list[Any], **options: Any) -> None:
        with pytest.raises(ValueError, match=sentence):
            refine_codes(source, data, nets, device="cpu", **options)

    refused("only stored codes can be refined; this generator draws noise", tiny_noise, images, classifiers)
    refused("at least one classifier and look, got 0 and 10", generator, images, [])
    refused("at least one classifier and look, got 2 and 0", generator, images, classifiers, looks=0)
    refused(
        r"data must hold the image of each code, \[10, 10, 10\] of each class, got \[10, 10, 9\]",
        generator,
        images.subset(torch.arange(29)),
        classifiers,
    )


# New soft labels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("labelled", [True, False])
def test_labels_are_what_classifiers_say_of_the_pictures(
    labelled: bool, generator: Generator, classifiers: list[nn.Module]
) -> None:
    source = generator
    if labelled:
        latents, labels = generator.bank.unpack(generator.bank.codes), torch.repeat_interleave(generator.bank.counts)
        source = generator.store(latents, labels, torch.eye(3)[labels])
    taught = relabel_codes(source, classifiers, temperature=1.5, batch_size=7, device="cpu")
    assert taught.config.soft_labels
    assert not taught.training
    assert torch.equal(taught.bank.codes, generator.bank.codes)
    assert torch.equal(taught.bank.counts, generator.bank.counts)
    shown = generator.spec.normalize(generator.decode(torch.arange(30)).float() / 255)
    views = [shown, shown.flip(-1)] if generator.spec.mirror else [shown]
    with torch.no_grad():
        wanted = torch.stack([(m(view) / 1.5).softmax(1) for m in classifiers for view in views]).mean(0)
    torch.testing.assert_close(taught.bank.opinions(torch.arange(30)), wanted, atol=0.01, rtol=0)
    assert source.config.soft_labels == labelled


def test_classifiers_of_half_precision_say_what_they_said(
    generator: Generator, images: LabelledImages, classifiers: list[nn.Module]
) -> None:
    half = [copy.deepcopy(member).half() for member in classifiers]
    same = [copy.deepcopy(member).float() for member in half]
    labelled, wanted = (relabel_codes(generator, members, device="cpu") for members in (half, same))
    assert torch.equal(labelled.bank.soft, wanted.bank.soft)
    refined, wanted = (refine_codes(generator, images, members, looks=2, device="cpu") for members in (half, same))
    assert torch.equal(refined.bank.codes, wanted.bank.codes)


def test_a_higher_temperature_makes_labels_less_sure(generator: Generator, classifiers: list[nn.Module]) -> None:
    labelled = [relabel_codes(generator, classifiers, temperature=t, device="cpu") for t in (0.2, 1.0, 5.0)]
    sure = [one.bank.opinions(torch.arange(30)).amax(1).mean().item() for one in labelled]
    assert sure[0] > sure[1] > sure[2]


def test_what_cannot_be_labelled_is_refused(
    tiny_noise: Generator, generator: Generator, classifiers: list[nn.Module]
) -> None:
    with pytest.raises(ValueError, match="only stored codes can be labelled; this generator draws noise"):
        relabel_codes(tiny_noise, classifiers, device="cpu")
    with pytest.raises(ValueError, match="no teacher was given"):
        relabel_codes(generator, [], device="cpu")
    for temperature in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=f"temperature must be positive, got {temperature}"):
            relabel_codes(generator, classifiers, temperature=temperature, device="cpu")
    foreign = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 5))
    with pytest.raises(ValueError, match=r"a teacher must give logits of shape \(\d+, 3\), got \(\d+, 5\)"):
        relabel_codes(generator, [foreign], device="cpu")


def test_classifiers_without_feature_maps_are_refused(generator: Generator, images: LabelledImages) -> None:
    class Sequential(nn.Sequential):
        """As torchvision's VGG: its features are a module, of one output."""

    vgg = Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3))
    sentence = r"under classifiers with a method features\(images\), .* and Sequential has none: take those of dim_data"
    with pytest.raises(TypeError, match=sentence):
        refine_codes(generator, images, [vgg], device="cpu")
    vgg.features = nn.Identity()
    with pytest.raises(TypeError, match=sentence):
        refine_codes(generator, images, [vgg], device="cpu")


def test_classifiers_of_other_classes_are_refused(generator: Generator, images: LabelledImages) -> None:
    other = SMALL_CLASSIFIERS["convnet3"](make_spec(3, 32, 5))
    with pytest.raises(ValueError, match=r"a classifier must give logits of shape \(30, 3\), got \(30, 5\)"):
        refine_codes(generator, images, [other], device="cpu")
