"""Generators that learn to draw their codes: of stored ones, and as the last stage of a run."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from surroundings import SURROUNDINGS, inside, plain, switches

from conftest import SMALL_CLASSIFIERS, TINY, make_data, make_generator, make_spec, stopping
from dim_data import DistillConfig, Generator, GeneratorConfig, StoppedError, distill
from dim_data.distillation import (
    MatchingConfig,
    PoolConfig,
    PriorTrainingConfig,
    ReconstructionConfig,
    SelectionConfig,
    encoding,
    learn_prior,
    learning,
    prior_training,
    reconstruction,
)
from dim_data.distillation.clusters import Sight, summaries
from dim_data.distillation.reconstruction import Encoder
from dim_data.format import to_numbers
from dim_data.images.rows import ImageRows
from dim_data.networks import ConvNet
from dim_data.protocol import evaluate

SMALL = PriorTrainingConfig(
    epochs=30, batch_size=16, width=16, layers=1, hidden=8, clusters=2, looks=4, patience=9, features=3
)
CONFIG = DistillConfig(
    source="noise",
    options={**TINY, "code_channels": 2},
    pool=PoolConfig(ages=(6, 3)),
    reconstruction=ReconstructionConfig(steps=12, batch_size=4),
    matching=MatchingConfig(steps=12, batch_size=4),
    selection=SelectionConfig(checkpoints=2, images=12),
    prior=SMALL,
    ema=0.9,
    holdout=0.2,
)
LABELS, SERIALS = torch.arange(12) % 3, torch.arange(12) // 3


@pytest.fixture(autouse=True)
def small_nets(small_classifiers: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconstruction, "Encoder", functools.partial(Encoder, width=8))
    monkeypatch.setattr("dim_data.distillation.candidates.save_curves", lambda metrics, path: None)


def lines(out: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in record.items() if k != "seconds"} for record in records]


Unbroken = Callable[[int, int], Path]


@pytest.mark.parametrize(("channels", "size", "classes", "turned"), [(1, 28, 2, True), (3, 32, 3, False)])
def test_a_run_ends_with_a_prior_and_no_code_of_an_image(
    channels: int, size: int, classes: int, turned: bool, tmp_path: Path, device: torch.device
) -> None:
    config = replace(CONFIG, prior=replace(SMALL, turned=turned, epochs=10 if turned else SMALL.epochs))
    data = make_data(channels, size, classes, per_class=12)
    data = replace(data, spec=replace(data.spec, mirror=channels == 3))
    steps: list[Any] = []
    result = distill(data, config=config, out=tmp_path / "run", on_step=steps.append, device=device)
    folder = tmp_path / "run" / "generator"
    assert result.config.prior is not None
    assert (result.config.source, result.config.codes, result.config.rank) == ("noise", 0, 0)
    assert result.config.prior.clusters == 2
    assert not result.source.finite
    read = Generator.from_pretrained(folder, device=device)
    labels = LABELS % classes
    assert torch.equal(read.synthesize(labels, SERIALS), result.synthesize(labels, SERIALS))
    stages = ["pool", "reconstruction", "matching", "prior"]
    assert list(dict.fromkeys(s.stage for s in steps)) == stages
    prior = [s for s in steps if s.stage == "prior"]
    assert [s.step for s in prior] == list(range(1, len(prior) + 1))
    logged = [r for r in lines(tmp_path / "run") if r["stage"] == "prior"]
    curve = [r["held_out_bits"] for r in logged if "held_out_bits" in r]
    assert len(curve) >= 2
    facts = json.loads((folder / "training_config.json").read_text())
    assert facts["held_out_bits"] == pytest.approx(min(curve), abs=0.01)
    assert facts["codes_shown_to_prior"] == 16 * len(prior)
    assert DistillConfig.from_dict(facts["config"]) == config
    accuracy = evaluate(read, data, ipc=1, epochs=2, seeds=(0,), device=device).mean
    assert 0 <= accuracy <= 1


def test_a_run_stopped_in_any_stage_resumes_and_ends_the_same(tmp_path: Path) -> None:
    data = make_data(1, 28, 3, per_class=12)
    distill(data, config=CONFIG, out=tmp_path / "whole", device="cpu")
    stops = iter([("matching", 5), ("prior", 7), ("prior", 23)])
    seen: list[tuple[str, int]] = []
    for stop in stops:
        with pytest.raises(StoppedError):
            distill(
                data,
                config=CONFIG,
                out=tmp_path / "broken",
                on_step=lambda s: seen.append((s.stage, s.step)),
                should_stop=lambda stop=stop: seen[-1] == stop,
                device="cpu",
            )
    distill(data, config=CONFIG, out=tmp_path / "broken", device="cpu")
    first, second = (tmp_path / name / "generator" / "model.safetensors" for name in ("whole", "broken"))
    assert first.read_bytes() == second.read_bytes()
    assert lines(tmp_path / "whole") == lines(tmp_path / "broken")
    again = distill(data, config=CONFIG, out=tmp_path / "broken", device="cpu")  # it is finished
    assert again.config.prior is not None


def test_without_a_prior_a_gaussian_takes_its_place(tmp_path: Path) -> None:
    config = replace(CONFIG, prior=replace(SMALL, epochs=0), rank=4)
    result = distill(make_data(1, 28, 3, per_class=12), config=config, out=tmp_path / "run", device="cpu")
    assert result.config.prior is None
    assert result.config.rank == 4


def test_what_would_not_be_read_is_refused() -> None:
    with pytest.raises(ValueError, match=r"prior\.\* is set, and would not be read"):
        DistillConfig(prior=SMALL)
    assert DistillConfig.from_dict(json.loads(json.dumps(CONFIG.to_dict()))) == CONFIG


# Of stored codes -----------------------------------------------------------------------------------------


def make_codes(count: int = 120) -> Generator:
    """Codes whose numbers are all the same, and tell the class."""
    spec = make_data(3, 32, 3).spec
    made = make_generator(GeneratorConfig(spec, "compact", "codes", {**TINY, "code_channels": 2}, codes=count))
    labels = torch.arange(count) % 3
    latents = (labels / 1.5 - 1)[:, None, None, None].expand(-1, *made.decoder.latent_shape)
    return made.store(latents, labels).requires_grad_(False).eval()


@pytest.mark.parametrize("parted", [False, True])
def test_codes_are_learned_from_those_stored(parted: bool, float32: None) -> None:
    generator = make_codes()
    teacher = ConvNet(generator.spec)
    classifier = SMALL_CLASSIFIERS["convnet3"](generator.spec) if parted else None
    config = replace(SMALL, epochs=60, lr=1e-2, corruption=0.0)
    steps: list[Any] = []
    learned = learn_prior(generator, classifier, teacher, config, device="cpu", on_step=steps.append)
    assert learned.config.prior is not None
    assert (learned.config.prior.clusters, learned.config.prior.features) == ((2, 3) if parted else (1, 0))
    assert learned.config.soft_labels
    assert not learned.training
    assert not any(p.requires_grad for p in learned.parameters())
    assert all(
        torch.equal(a, b) for a, b in zip(learned.decoder.parameters(), generator.decoder.parameters(), strict=True)
    )
    latents = learned.latents(LABELS, SERIALS)
    wanted = generator.latents(LABELS, SERIALS)
    assert (latents == wanted).float().mean() > 0.9
    assert steps[-1].losses["held_out_bits"] < 0.2 * 2 * 128
    assert generator.source.finite


def test_pictures_are_drawn_like_images_that_the_classifier_takes_for_their_class() -> None:
    generator = make_codes()
    labels, rng = generator.bank.labels, torch.Generator().manual_seed(0)
    maps = torch.rand(len(labels), 8, generator=rng)
    # Of the first class it knows those of which the first map is bright; of the second it is sure of none.
    logits = torch.zeros(len(labels), 3)
    logits[labels == 0, 0] = torch.where(maps[labels == 0, 0] > 0.3, 5.0, -5.0)
    logits[labels == 1, 1] = -maps[labels == 1, 0]
    logits[labels == 2, 2] = 9.0
    held = torch.arange(len(labels)) % 5 == 0
    codes = torch.zeros(len(labels), *generator.decoder.latent_shape, dtype=torch.uint8)

    def anchors(accept: float) -> list[set[tuple[float, ...]]]:
        config = replace(SMALL, clusters=1, anchors=64, accept=accept)
        training = prior_training.PriorTraining.of(
            generator, codes, labels, held, Sight(maps, logits), config, 0, torch.device("cpu")
        )
        return [{tuple(row) for row in rows.tolist()} for rows in training.result.anchors]

    features = summaries(Sight(maps, logits), 3)
    kept = [(labels == 0) & ~held & (maps[:, 0] > 0.3), (labels == 1) & ~held, (labels == 2) & ~held]
    assert kept[0].sum() > 0.5 * kept[2].sum()
    kept[1] &= maps[:, 0] <= maps[kept[1], 0].sort().values[int(kept[1].sum()) // 2]
    assert anchors(0.5) == [{tuple(row) for row in features[rows].tolist()} for rows in kept]
    assert anchors(0.0)[0] == {tuple(row) for row in features[(labels == 0) & ~held].tolist()}


def test_learning_is_repeatable_and_leaves_the_random_state_alone() -> None:
    generator, config = make_codes(), replace(SMALL, epochs=2)
    state = torch.get_rng_state()
    one, two = (learn_prior(generator, config=config, device="cpu") for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    other = learn_prior(generator, config=config, seed=1, device="cpu")
    assert not torch.equal(other.source.prior.bias, one.source.prior.bias)


@pytest.mark.parametrize(
    ("holdout", "held"), [(0.0, (0, 0, 0)), (0.05, (2, 1, 0)), (0.3, (12, 1, 0)), (0.99, (39, 2, 0))]
)
def test_of_each_class_a_share_is_held_out_and_never_all(
    holdout: float, held: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_trainings: list[prior_training.PriorTraining] = []
    of = prior_training.PriorTraining.of
    monkeypatch.setattr(
        prior_training.PriorTraining, "of", lambda *args: given_trainings.append(of(*args)) or given_trainings[-1]
    )
    whole = make_codes()
    generator = whole.keep_rows(torch.cat([torch.arange(40), torch.arange(40, 43), torch.tensor([80])]))
    learned = learn_prior(generator, config=replace(SMALL, epochs=1), holdout=holdout, seed=3, device="cpu")
    (training,) = given_trainings
    left = torch.tensor([40, 3, 1]) - torch.tensor(held)
    assert torch.equal(torch.bincount(training.train.labels, minlength=3), left)
    if any(held):
        assert torch.bincount(training.held_out.labels, minlength=3).tolist() == list(held)
    assert (learned.source.prior.frequencies.sum(1) > 0).all()
    assert Generator.from_pretrained(learned.save_pretrained(tmp_path)).config == learned.config


def test_what_was_begun_with_other_codes_held_out_is_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator, file, config = make_codes(), tmp_path / "prior.pt", replace(SMALL, epochs=2)
    options: dict[str, Any] = {"config": config, "device": "cpu", "checkpoint": file}
    drawn = learning.drawn_rows
    monkeypatch.setattr(learning, "drawn_rows", lambda generator, shares, seed: drawn(generator, shares, seed + 1))
    with pytest.raises(StoppedError):
        learn_prior(generator, **options, **stopping("prior", 2))
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"is of other work: it differs in held_out \("):
        learn_prior(generator, **options)


def test_a_classifier_of_half_precision_tells_what_it_told() -> None:
    generator, config = make_codes(), replace(SMALL, epochs=2)
    half = SMALL_CLASSIFIERS["convnet3"](generator.spec).half()
    one, two = (learn_prior(generator, c, config=config, device="cpu") for c in (half, copy.deepcopy(half).float()))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


def test_what_cannot_be_learned_is_refused(tiny_noise: Generator) -> None:
    with pytest.raises(ValueError, match="only a generator with stored codes has a bank"):
        learn_prior(tiny_noise, device="cpu")
    with pytest.raises(ValueError, match=r"holdout must be in \[0, 1\) and epochs positive, got 1.0 and 20.0"):
        learn_prior(make_codes(), holdout=1.0, device="cpu")
    with pytest.raises(ValueError, match="codes cannot be turned: give the images that they are of"):
        learn_prior(make_codes(), config=replace(SMALL, turned=True), device="cpu")
    with pytest.raises(ValueError, match=r"prior\.turned must be true or false, got 4"):
        PriorTrainingConfig(turned=4)  # type: ignore[arg-type]


@pytest.mark.parametrize("classes", [0, 4])
def test_a_teacher_that_cannot_be_kept_is_refused_before_anything_is_trained(classes: int) -> None:
    generator, steps = make_codes(), []
    teacher = ConvNet(make_spec(3, 32, classes)) if classes else torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"the teacher must be a ConvNet\(spec\) of the generator's spec: "):
        learn_prior(generator, teacher=teacher, config=replace(SMALL, epochs=1), device="cpu", on_step=steps.append)
    assert not steps


@pytest.mark.parametrize("stage", ["encoder", "prior"])
def test_with_images_codes_of_shifted_ones_are_learned_and_a_stopped_call_goes_on(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "Encoder", functools.partial(Encoder, width=8))
    monkeypatch.setattr(learning, "ENCODER_PASSES", 40)
    generator, file = make_codes(), tmp_path / "prior.pt"
    data = make_data(3, 32, 3, per_class=40)
    data = data.subset(data.labels.argsort(stable=True))
    assert torch.equal(data.labels, generator.bank.labels)
    brightness = (data.labels * 100).to(torch.uint8)[:, None, None, None]
    data = replace(data, images=brightness.expand_as(data.images).contiguous())
    config, steps = replace(SMALL, epochs=3), []
    options = {"config": config, "images": data, "device": "cpu"}
    whole = learn_prior(generator, **options, on_step=steps.append)
    assert list(dict.fromkeys(s.stage for s in steps)) == ["encoder", "prior"]
    errors = [s.losses["codes"] for s in steps if s.stage == "encoder"]
    assert errors[-1] < 0.5 * errors[0]
    with pytest.raises(StoppedError, match=f"stopped in stage '{stage}', step 2 of"):
        learn_prior(generator, **options, checkpoint=file, **stopping(stage, 2))
    with pytest.raises(ValueError, match=r"is of other work: it differs in config.epochs \(3 there, 4 here\)"):
        learn_prior(generator, **{**options, "config": replace(config, epochs=4)}, checkpoint=file)
    resumed = learn_prior(generator, **options, checkpoint=file)
    assert plain(resumed) == plain(whole)
    steps.clear()
    again = learn_prior(generator, **options, checkpoint=file, on_step=steps.append)
    assert plain(again) == plain(whole)
    assert not steps
    assert file.exists()  # whoever called it knows when the result is safe
    assert plain(learn_prior(generator, config=config, device="cpu")) != plain(whole)


@pytest.mark.parametrize("mirror", [False, True])
def test_all_views_of_images_that_may_be_turned_are_learned(mirror: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prior_training, "TURNED", 5)
    generator, config = make_codes(), replace(SMALL, turned=True)
    encoder, classifier = Encoder(generator.spec, generator.decoder.latent_shape), ConvNet(generator.spec, width=8)
    images = torch.randint(256, (16, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    train, held_out = make_data(3, 32, 3, per_class=4), make_data(3, 32, 3, per_class=2).subset(torch.arange(4))
    train, held_out = replace(train, images=images[:12]), replace(held_out, images=images[12:])
    stored = torch.randint(2, (16, *generator.decoder.latent_shape)).to(torch.uint8)
    options: dict[str, Any] = {"mirror": mirror, "seed": 0, "device": torch.device("cpu"), "stored": stored}
    given = [replace(data, images=ImageRows(data.images.numpy())) if mirror else data for data in (train, held_out)]
    training = prior_training.prior_training_on_images(generator, encoder, *given, classifier, config, **options)
    assert training.encode is None
    for data, codes, own in ((train, training.train, stored[:12]), (held_out, training.held_out, stored[12:])):
        views = [torch.rot90(data.images, turns, (2, 3)) for turns in range(4)]
        views += [torch.rot90(data.images.flip(-1), turns, (2, 3)) for turns in range(4)] * mirror
        latents = reconstruction.encode_images(encoder, torch.cat(views), torch.device("cpu"))
        wanted = to_numbers(torch.cat(list(latents)), generator.bank.levels)
        assert torch.equal(codes.codes[len(data) :], wanted[len(data) :])
        assert torch.equal(codes.codes[: len(data)], own)
        assert torch.equal(codes.labels, data.labels.repeat(8 if mirror else 4))
        assert len(codes.features.unique(dim=0)) > len(data)  # of each view what is seen in it


def test_images_that_are_not_those_of_the_codes_are_refused() -> None:
    generator, data = make_codes(), make_data(3, 32, 3, per_class=40)
    assert data.labels.tolist() != generator.bank.labels.tolist()
    with pytest.raises(ValueError, match="images must be those whose codes are stored, 120 class by class, got 120 of"):
        learn_prior(generator, images=data, device="cpu")
    data = data.subset(data.labels.argsort(stable=True))
    first, second, third = data.spec.classes
    swapped = replace(data, spec=replace(data.spec, classes=(first, third, second)))
    with pytest.raises(ValueError, match="by the names of generator"):
        learn_prior(generator, images=swapped, device="cpu")


def test_images_whose_classes_are_numbered_otherwise_are_learned_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "Encoder", functools.partial(Encoder, width=8))
    generator, data = make_codes(), make_data(3, 32, 3, per_class=40)
    data = data.subset(data.labels.argsort(stable=True))
    first, second, third = data.spec.classes
    renumbered = replace(data, labels=(data.labels + 1) % 3, spec=replace(data.spec, classes=(third, first, second)))
    config = replace(SMALL, epochs=1)
    one, two = (learn_prior(generator, config=config, images=given, device="cpu") for given in (data, renumbered))
    assert plain(one) == plain(two)


def test_images_are_shifted_by_whole_pixels_and_their_borders_mirrored() -> None:
    images = torch.arange(2 * 36, dtype=torch.uint8).view(2, 1, 6, 6)
    same = torch.full((2, 2), 2)
    assert torch.equal(prior_training._shift(images, same), images)
    moved = prior_training._shift(images, torch.tensor([[4, 2], [2, 0]]))
    assert torch.equal(moved[0, :, :4], images[0, :, 2:])
    assert torch.equal(moved[0, :, 4], images[0, :, 4])  # the last row is not repeated
    assert torch.equal(moved[1, :, :, 2:], images[1, :, :, :4])
    assert torch.equal(moved[1, :, :, 0], images[1, :, :, 2])


@pytest.mark.parametrize("surroundings", SURROUNDINGS)
def test_a_prior_is_the_same_whatever_its_caller_has_switched_on(surroundings: str, tiny_codes: Generator) -> None:
    config, seen = replace(SMALL, epochs=2), []
    outside = plain(learn_prior(tiny_codes, config=config, device="cpu"))
    with inside(surroundings):
        before = switches()
        found = learn_prior(tiny_codes, config=config, device="cpu", on_step=lambda step: seen.append(switches()[:-1]))
    assert plain(found) == outside
    assert set(seen) == {before[:-1]}
