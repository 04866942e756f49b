"""Generators whose codes a learned prior writes."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader

from conftest import TINY, make_generator, make_prior, make_spec
from dim_data import DistilledDataset, DistilledLoader, Generator, GeneratorConfig
from dim_data.format import CONFIG, WEIGHTS
from dim_data.generator import describe
from dim_data.generator.sources import prior as source_module
from dim_data.networks import ConvNet, PriorConfig, TokenPrior

LABELS = torch.arange(20) % 3
SERIALS = torch.arange(20)


def build(channels: int, size: int, classes: int, **options: int) -> Generator:
    spec = make_spec(channels, size, classes)
    codes = make_generator(GeneratorConfig(spec, "compact", "codes", {**TINY, **options}, codes=2 * classes))
    return codes.with_prior(make_prior(codes.decoder.latent_shape, codes.bank.levels, classes))


@pytest.mark.parametrize(
    ("channels", "size", "classes", "options"),
    [(1, 28, 2, {}), (3, 32, 200, {}), (3, 64, 3, {"code_channels": 1}), (1, 128, 2, {"code_levels": 10})],
)
def test_pictures_of_any_size_and_number_of_classes(
    channels: int, size: int, classes: int, options: dict[str, int]
) -> None:
    generator = build(channels, size, classes, **options)
    labels = torch.tensor([0, classes - 1, 0])
    latents = generator.latents(labels, SERIALS[:3])
    assert latents.shape == (3, *generator.decoder.latent_shape)
    levels = (latents + 1) / 2 * (generator.source.prior.levels - 1)
    torch.testing.assert_close(levels, levels.round())
    pictures = generator.synthesize(labels, SERIALS[:3])
    assert pictures.shape == (3, channels, size, size)
    assert not torch.equal(pictures[0], pictures[2])


def test_a_picture_is_a_pure_function_of_generator_seed_label_and_serial(tiny_prior: Generator) -> None:
    whole = copy.deepcopy(tiny_prior).latents(LABELS, SERIALS)
    one_by_one = copy.deepcopy(tiny_prior)
    for i in (0, 19, 7, 7, 1):
        assert torch.equal(one_by_one.latents(LABELS[i : i + 1], SERIALS[i : i + 1])[0], whole[i])
    assert torch.equal(copy.deepcopy(tiny_prior).latents(LABELS.flip(0), SERIALS.flip(0)).flip(0), whole)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(copy.deepcopy(tiny_prior).latents(LABELS, SERIALS), whole)
    finally:
        torch.set_num_threads(threads)
    assert not torch.equal(tiny_prior.latents(LABELS, SERIALS, seed=1), whole)
    assert torch.equal(tiny_prior.latents(LABELS, SERIALS), whole)
    assert len(whole.unique(dim=0)) == 20


def test_what_is_drawn_ahead_is_not_drawn_again(tiny_prior: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    generator, calls = copy.deepcopy(tiny_prior), []
    draw = source_module.sample_codes
    monkeypatch.setattr(source_module, "sample_codes", lambda *args: calls.append(len(args[1])) or draw(*args))
    for epoch in range(10):
        generator.latents(torch.arange(3), torch.full((3,), epoch))
    assert calls == [128]
    for serial in range(1000, 1040):  # one by one, as a wrapper around a dataset may ask
        generator.latents(torch.zeros(1, dtype=torch.int64), torch.tensor([serial]))
    assert calls == [128, 128]
    assert len(generator.source._drawn) == 256
    monkeypatch.setattr(source_module, "KEPT", 10)
    generator.latents(torch.zeros(1, dtype=torch.int64), torch.tensor([5000]))
    assert len(generator.source._drawn) == 10
    assert len(pickle.dumps(generator)) == len(pickle.dumps(copy.deepcopy(generator)))
    assert copy.deepcopy(generator).source._drawn == {}


@pytest.mark.parametrize(("ipc", "batch"), [(40, 10), (40, 30), (400, 50), (2, 6)])
def test_shuffled_epochs_draw_little_more_than_they_show(
    tiny_prior: Generator, monkeypatch: pytest.MonkeyPatch, ipc: int, batch: int
) -> None:
    drawn: list[int] = []

    def draw(prior: TokenPrior, labels: torch.Tensor, *rest: Any) -> torch.Tensor:
        drawn.append(len(labels))
        return torch.zeros(len(labels), *prior.shape, dtype=torch.uint8)

    monkeypatch.setattr(source_module, "sample_codes", draw)
    source, rng, epochs = copy.deepcopy(tiny_prior).source, torch.Generator().manual_seed(0), 2 + 1000 // ipc
    for epoch in range(epochs):
        for places in torch.randperm(3 * ipc, generator=rng).split(batch):
            source.latents(places % 3, epoch * ipc + places // 3, 0)
    assert sum(drawn) < 1.05 * 3 * ipc * epochs + 1024, "but for those of epochs to come"


def test_the_last_serial_is_drawn_as_any(tiny_prior: Generator) -> None:
    last = torch.tensor([2**63 - 1])
    generator = copy.deepcopy(tiny_prior)
    assert torch.equal(generator.latents(last % 3, last), generator.latents((last % 3).repeat(2), last.repeat(2))[1:])


def test_changed_weights_draw_anew(tiny_prior: Generator) -> None:
    generator = copy.deepcopy(tiny_prior)
    before = generator.latents(LABELS, SERIALS)
    with torch.no_grad():
        generator.source.prior.bias[:, 0] += 100
    assert (generator.latents(LABELS, SERIALS) == -1).all()
    generator.load_state_dict(tiny_prior.state_dict())
    assert torch.equal(generator.latents(LABELS, SERIALS), before)
    generator.to(torch.float64).to(torch.float32)
    assert torch.equal(generator.latents(LABELS, SERIALS), before)


def test_clusters_are_drawn_by_their_frequency(tiny_prior: Generator) -> None:
    generator = copy.deepcopy(tiny_prior)
    told: list[torch.Tensor] = []
    generator.source.prior.frequencies.copy_(torch.tensor([[0.0, 1, 0], [3, 0, 1], [1, 1, 2]]))
    draw = source_module.sample_codes
    try:
        source_module.sample_codes = lambda prior, labels, clusters, *rest: (
            told.append(clusters)
            or draw(
                prior, labels[:1], clusters[:1], *(x[:1] if isinstance(x, torch.Tensor) else x for x in rest)
            ).expand(len(labels), -1, -1, -1)
        )
        labels = torch.arange(3000) % 3
        generator.latents(labels, torch.arange(3000))
    finally:
        source_module.sample_codes = draw
    found = torch.bincount(told[0][:3000], minlength=9).view(3, 3) / 1000
    wanted = torch.tensor([[0, 1, 0], [0.75, 0, 0.25], [0.25, 0.25, 0.5]])
    assert (found - wanted).abs().max() < 0.05
    assert ((found == 0) == (wanted == 0)).all()


def test_features_are_drawn_around_the_anchors_of_their_cluster(tiny_prior: Generator) -> None:
    generator = copy.deepcopy(tiny_prior)
    source, rng = generator.source, torch.Generator().manual_seed(0)
    prior = source.prior
    prior.anchors.copy_(100 * torch.randn(prior.anchors.shape, generator=rng))
    prior.blur.copy_(torch.tensor([0.5, 1, 2, 3, 4]))
    count = 20_000
    clusters, drawn = source.conditions(torch.ones(count, dtype=torch.int64), torch.arange(count), 0)
    assert clusters.unique().tolist() == [3, 4, 5]
    anchors = prior.anchors[clusters]
    nearest = (anchors - drawn[:, None]).square().sum(2).argmin(1)
    taken = torch.bincount(nearest, minlength=prior.config.anchors) / count
    assert (taken - 1 / prior.config.anchors).abs().max() < 0.02
    off = drawn - anchors[torch.arange(count), nearest]
    torch.testing.assert_close(off.mean(0), torch.zeros(5), atol=0.1, rtol=0)
    torch.testing.assert_close(off.std(0), prior.blur, atol=0, rtol=0.03)
    assert (off.T.corrcoef() - torch.eye(5)).abs().max() < 0.03


def test_a_prior_need_not_be_told_features(tiny_codes: Generator) -> None:
    prior = make_prior(tiny_codes.decoder.latent_shape, tiny_codes.bank.levels, 3, features=0)
    assert not {"anchors", "blur", "feature.weight"} & set(prior.state_dict())
    generator = tiny_codes.with_prior(prior)
    assert torch.equal(generator.latents(LABELS, SERIALS), generator.latents(LABELS, SERIALS))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int8, "int4", None])
def test_it_is_saved_and_read_in_every_number_format(tiny_codes: Generator, dtype: Any, tmp_path: Path) -> None:
    prior = make_prior(tiny_codes.decoder.latent_shape, tiny_codes.bank.levels, 3, width=64, layers=1, hidden=32)
    generator = tiny_codes.with_prior(prior)
    folder = generator.save_pretrained(tmp_path / "a", dtype=dtype)
    read = Generator.from_pretrained(folder)
    assert read.config == generator.config
    wanted, found = (g.latents(LABELS, SERIALS) for g in (generator, read))
    same = (wanted == found).float().mean()
    assert same == 1 if dtype == torch.float32 else same > 0.3
    assert torch.equal(read.source.prior.real, prior.real)
    kinds = {name: tensor.dtype for name, tensor in load_file(folder / WEIGHTS).items()}
    layer = "prior.blocks.0.up.weight"
    wanted_kind = {None: torch.float16, "int4": torch.uint8}.get(dtype, dtype)
    assert kinds[layer] == wanted_kind
    assert not [name for name in kinds if "source" in name or "earlier" in name or "real" in name]
    again = Generator.from_pretrained(read.save_pretrained(tmp_path / "b"))
    assert torch.equal(again.latents(LABELS, SERIALS), found)
    assert torch.equal(again.synthesize(LABELS, SERIALS), read.synthesize(LABELS, SERIALS))


def test_the_config_names_a_prior_only_where_there_is_one(tiny_prior: Generator, tiny_codes: Generator) -> None:
    assert "prior" not in tiny_codes.config.to_dict()
    values = tiny_prior.config.to_dict()
    assert values["prior"] == {
        "width": 16,
        "layers": 2,
        "hidden": 8,
        "clusters": 3,
        "patch": 2,
        "features": 5,
        "anchors": 4,
    }
    assert GeneratorConfig.from_dict(json.loads(json.dumps(values))) == tiny_prior.config
    for wrong in ({**values, "prior": None}, {**values, "prior": {}}, {**values, "prior": {"width": 16}}):
        with pytest.raises((ValueError, TypeError), match="a prior's config"):
            GeneratorConfig.from_dict(wrong)
    with pytest.raises(ValueError, match="a generator config has the keys"):
        GeneratorConfig.from_dict({**values, "priors": values["prior"]})


@pytest.mark.parametrize(
    "changes", [{"rank": 8}, {"sigma": 0.9}, {"source": "codes", "codes": 9}, {"architecture": "dim", "options": {}}]
)
def test_a_prior_goes_with_plain_noise_and_a_decoder_of_codes(tiny_prior: Generator, changes: dict[str, Any]) -> None:
    values = {"spec": tiny_prior.spec, "options": TINY, "source": "noise", "prior": PriorConfig(), **changes}
    with pytest.raises(ValueError, match="a prior turns plain noise into codes: it takes"):
        GeneratorConfig(**values)
    with pytest.raises(TypeError, match=r"GeneratorConfig\.prior must be a PriorConfig or None, got 3"):
        GeneratorConfig(tiny_prior.spec, prior=3)  # type: ignore[arg-type]


def test_a_prior_of_other_codes_is_refused(tiny_codes: Generator, tiny_noise: Generator) -> None:
    with pytest.raises(ValueError, match="the prior must be one of this decoder's codes and classes"):
        tiny_codes.with_prior(make_prior((2, 4, 4), 4, 3))
    with pytest.raises(ValueError, match="the prior must be one of this decoder's codes and classes"):
        tiny_noise.with_prior(make_prior(tiny_codes.decoder.latent_shape, 4, 3))


@pytest.mark.parametrize("values", [[[-1.0, 1, 1]] * 3, [[0.0, 0, 0], [1, 1, 1], [1, 1, 1]]])
def test_frequencies_of_no_distribution_are_refused(
    tiny_prior: Generator, values: list[list[float]], tmp_path: Path
) -> None:
    folder = tiny_prior.save_pretrained(tmp_path / "a", dtype=torch.float32)
    tensors = load_file(folder / WEIGHTS)
    save_file({**tensors, "prior.frequencies": torch.tensor(values)}, folder / WEIGHTS, {"format": "pt"})
    with pytest.raises(ValueError, match=r"'prior\.frequencies' must not be negative"):
        Generator.from_pretrained(folder)


def test_a_hostile_config_is_refused_before_anything_is_allocated(tiny_prior: Generator, tmp_path: Path) -> None:
    folder = tiny_prior.save_pretrained(tmp_path / "a")
    values = json.loads((folder / CONFIG).read_text())
    for prior, message in (
        ({"width": 1024, "layers": 32, "hidden": 1024, "clusters": 1024, "patch": 4}, "parameters; the limit is"),
        ({"patch": 1}, "has shape"),
        ({"features": 6}, "has shape"),
        ({"width": 10**9}, "must be 8 to 1024"),
    ):
        (folder / CONFIG).write_text(json.dumps({**values, "prior": {**values["prior"], **prior}}))
        with pytest.raises(ValueError, match=message):
            Generator.from_pretrained(folder)


def test_it_says_what_it_is(tiny_prior: Generator, tmp_path: Path) -> None:
    count = sum(p.numel() for p in tiny_prior.source.prior.parameters())
    assert f"noise, through a prior of {count:,} parameters" in repr(tiny_prior)
    folder = tiny_prior.save_pretrained(tmp_path / "a")
    assert describe(tiny_prior, folder)["latents"] == f"noise, through a prior of {count:,} parameters"
    with pytest.raises(ValueError, match="only a generator with stored codes has a bank"):
        tiny_prior.decode(torch.arange(3))


def test_a_teacher_beside_it_gives_soft_labels(tiny_codes: Generator, tiny_prior: Generator) -> None:
    generator = tiny_codes.with_prior(tiny_prior.source.prior, ConvNet(tiny_codes.spec))
    soft = generator.soft_labels(LABELS, SERIALS)
    assert soft.shape == (20, 3)
    torch.testing.assert_close(soft.sum(1), torch.ones(20))
    half = copy.deepcopy(generator).half().soft_labels(LABELS, SERIALS)
    assert (half.dtype, half.shape) == (torch.float32, soft.shape)
    assert torch.allclose(half.sum(1), torch.ones(len(half)), atol=1e-4)
    data = DistilledDataset(generator, ipc=2, soft_labels=True)
    assert data[0][1].shape == (3,)


@pytest.mark.parametrize("workers", [0, 2])
def test_dataset_and_loader_hand_out_its_pictures(tiny_prior: Generator, workers: int) -> None:
    data = DistilledDataset(tiny_prior, ipc=6)
    batches = list(DataLoader(data, 4, num_workers=workers, collate_fn=list))
    wanted = copy.deepcopy(tiny_prior).synthesize(torch.arange(18) % 3, torch.arange(18) // 3)
    found = torch.stack([torch.from_numpy(np.array(x)) for batch in batches for x, _ in batch])
    assert torch.equal(found.permute(0, 3, 1, 2), wanted)
    loader = DistilledLoader(tiny_prior, 5, ipc=6, dtype=torch.uint8, shuffle=False, device="cpu")
    assert torch.equal(torch.cat([images for images, _ in loader]), wanted)
    with pytest.raises(ValueError, match="a cache needs stored codes"):
        DistilledDataset(tiny_prior, cache=True)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_a_prior_in_half_precision_draws_what_its_weights_say(tiny_prior: Generator, kind: torch.dtype) -> None:
    half = copy.deepcopy(tiny_prior).to(kind)
    labels, serials = torch.arange(60) % 3, torch.arange(60) // 3
    drawn = half.latents(labels, serials, seed=1)
    assert (drawn.dtype, next(half.parameters()).dtype) == (torch.float32, kind)
    assert torch.equal(drawn, copy.deepcopy(half).float().latents(labels, serials, seed=1))
    assert half.synthesize(labels, serials).shape == tiny_prior.synthesize(labels, serials).shape
