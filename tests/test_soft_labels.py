"""A teacher's opinions, stored beside the codes: made, saved, handed out, learnt from."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import DataLoader

from conftest import TINY, make_data, make_generator, make_spec
from dim_data import DistillConfig, DistilledDataset, DistilledLoader, Generator, distill, evaluate
from dim_data.distillation import LabelsConfig, PoolConfig, reconstruction
from dim_data.distillation.pool import oldest_members, start_pool
from dim_data.distillation.reconstruction import Encoder
from dim_data.format.config import GeneratorConfig
from dim_data.generator.labelling import opinions
from dim_data.images.real import LabelledImages
from dim_data.protocol.showing import image_source

CPU = torch.device("cpu")


@pytest.fixture
def soft(tiny_codes: Generator) -> Generator:
    """The tiny generator; the opinion of code ``row`` is (row, 1, 119 - row) / 120."""
    labels = torch.repeat_interleave(tiny_codes.bank.counts)
    rows = torch.arange(120.0)
    given = torch.stack([rows, torch.ones(120), 119 - rows], 1) / 120
    return tiny_codes.store(tiny_codes.bank.unpack(tiny_codes.bank.codes), labels, given)


def order(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.arange(count) % 3, torch.arange(count) // 3


def test_each_picture_comes_with_its_own_opinion(soft: Generator, tiny_codes: Generator) -> None:
    labels, serials = order(90)
    pictures = soft.synthesize(labels, serials, 5)
    assert torch.equal(pictures, tiny_codes.synthesize(labels, serials, 5))
    every = soft.decode(torch.arange(120)).flatten(1)
    rows = torch.tensor([int((every == picture.flatten()).all(1).nonzero()[0, 0]) for picture in pictures])
    found = soft.soft_labels(labels, serials, 5)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.sum(1), torch.ones(90))
    torch.testing.assert_close(found[:, 0], rows / 120, atol=0.005, rtol=0)


def test_they_come_back_from_files_and_go_with_the_codes(soft: Generator, tmp_path: Path) -> None:
    loaded = Generator.from_pretrained(soft.save_pretrained(tmp_path))
    assert loaded.config.soft_labels
    assert torch.equal(loaded.soft_labels(*order(30)), soft.soft_labels(*order(30)))
    assert not soft.forget_codes().config.soft_labels


def test_opinions_on_many_classes_are_stored_though_none_is_likely(tmp_path: Path) -> None:
    spec, classes = make_spec(1, 28, 600), torch.arange(600)
    bank = make_generator(GeneratorConfig(spec, "compact", "codes", {**TINY, "code_channels": 1}, codes=600))
    told = torch.rand(600, 600, generator=torch.Generator().manual_seed(0)).div(10).softmax(1)
    assert told.max() < 0.5 / 255
    stored = bank.store(bank.bank.unpack(bank.bank.codes), classes, told)
    loaded = Generator.from_pretrained(stored.save_pretrained(tmp_path))
    torch.testing.assert_close(loaded.bank.opinions(classes), told, atol=0, rtol=0.01)
    part = loaded.keep_rows(classes)
    assert torch.equal(part.bank.soft, loaded.bank.soft)


def test_a_part_of_the_codes_keeps_its_own(soft: Generator) -> None:
    labels, serials = order(30)
    part = soft.keep_codes(60, seed=7)
    pictures = part.synthesize(labels, serials, 1)
    every, opinions = soft.decode(torch.arange(120)).flatten(1), soft.bank.soft
    rows = [int((every == picture.flatten()).all(1).nonzero()[0, 0]) for picture in pictures]
    wanted = opinions[rows].float()
    assert torch.equal(part.soft_labels(labels, serials, 1), wanted / wanted.sum(1, keepdim=True))


def test_codes_can_be_kept_without_them(soft: Generator) -> None:
    part = soft.keep_codes(60, seed=7, soft_labels=False)
    assert not part.config.soft_labels
    assert torch.equal(part.bank.codes, soft.keep_codes(60, seed=7).bank.codes)


def test_an_opinion_of_nothing_is_refused(soft: Generator, tmp_path: Path) -> None:
    path = soft.save_pretrained(tmp_path) / "model.safetensors"
    state = load_file(path)
    state["soft"][3] = 0
    save_file(state, path)
    with pytest.raises(ValueError, match="a row of 'soft' gives no class any probability"):
        Generator.from_pretrained(tmp_path)


def test_datasets_and_loaders_hand_them_out(soft: Generator) -> None:
    dataset = DistilledDataset(soft, ipc=20, soft_labels=True, transform=lambda image: 0)
    loader = DistilledLoader(soft, 60, ipc=20, shuffle=False, device="cpu", soft_labels=True)
    for epoch, (_, theirs) in zip(range(3), (batch for _ in range(3) for batch in loader), strict=True):
        dataset.set_epoch(epoch)
        (_, ours), *rest = DataLoader(dataset, batch_size=60)
        assert not rest
        assert ours.shape == (60, 3)
        assert torch.equal(ours, theirs)
        assert torch.equal(ours, soft.soft_labels(*order(60)[:1], order(60)[1] + 20 * epoch))
        torch.nn.functional.cross_entropy(torch.randn(60, 3), ours)
    assert dataset.targets == [0, 1, 2] * 20
    assert dataset[-1][1].shape == (3,)


@pytest.mark.parametrize("build", [DistilledDataset, DistilledLoader])
def test_a_generator_without_them_has_none_to_hand_out(build: Any, tiny_codes: Generator) -> None:
    with pytest.raises(ValueError, match=r"soft_labels=True, but this generator stores none: leave it out"):
        build(tiny_codes, ipc=1, soft_labels=True)
    with pytest.raises(ValueError, match="this generator stores no soft labels"):
        tiny_codes.soft_labels(*order(3))


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_a_share_of_them_leaves_the_rest_to_the_class(soft: Generator, share: float) -> None:
    dataset = DistilledDataset(soft, ipc=20, soft_labels=share, fixed=True, transform=lambda image: 0)
    loader = DistilledLoader(soft, 60, ipc=20, shuffle=False, device="cpu", soft_labels=share)
    (_, ours), (_, theirs) = next(iter(DataLoader(dataset, batch_size=60))), next(iter(loader))
    assert torch.equal(ours, theirs)
    wanted = share * soft.soft_labels(*order(60)) + (1 - share) * torch.eye(3)[order(60)[0]]
    torch.testing.assert_close(ours, wanted)


@pytest.mark.parametrize("build", [DistilledDataset, DistilledLoader])
@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan"), "half"])
def test_what_is_no_share_is_refused(build: Any, share: Any, soft: Generator) -> None:
    with pytest.raises(ValueError, match=r"soft_labels must be True, False or a share in \[0, 1\], got"):
        build(soft, ipc=1, soft_labels=share)


def test_a_recipe_can_learn_a_share_of_them(soft: Generator) -> None:
    """What a training is shown: the same of a generator and of its pictures as a set of images."""
    labels, serials = order(60)
    said = soft.bank.soft / soft.bank.soft.sum(1, keepdim=True)
    images = LabelledImages(soft.decode(torch.arange(120)), torch.repeat_interleave(soft.bank.counts), soft.spec, said)
    wanted = 0.5 * soft.soft_labels(labels, serials, 3) + 0.5 * torch.eye(3)[labels]
    for source in (soft, images):
        shown, targets = image_source(source, 600, 0.5)(labels, serials, 3)
        assert torch.equal(shown, soft.synthesize(labels, serials, 3))
        torch.testing.assert_close(targets, wanted)


@pytest.mark.usefixtures("small_classifiers")
def test_the_recipe_learns_them(tiny_codes: Generator) -> None:
    """A teacher that swaps two classes makes pupils that swap them, on generated and on real images."""
    data, test = make_data(), make_data(seed=1)
    swapped = torch.eye(3)[[1, 0, 2]]
    real = replace(data, soft=swapped[data.labels])
    assert torch.equal(real.subset(torch.tensor([4, 2])).soft, swapped[data.labels[[4, 2]]])
    wrong = LabelledImages(test.images, torch.tensor([1, 0, 2])[test.labels], test.spec)
    quick = {"ipc": 4, "epochs": 30, "seeds": (0,), "device": CPU}
    result = evaluate(real, wrong, recipe="soft", **quick)
    assert result.recipe == "soft"
    assert result.mean > 0.9
    labels = torch.repeat_interleave(tiny_codes.bank.counts)
    taught = tiny_codes.store(tiny_codes.bank.unpack(tiny_codes.bank.codes), labels, swapped[labels])
    pictures = LabelledImages(taught.decode(torch.arange(120)), torch.tensor([1, 0, 2])[labels], taught.spec)
    one, other = (
        evaluate(source, pictures, recipe="soft", **quick).mean
        for source in (taught, replace(pictures, soft=swapped[labels]))
    )
    assert one == pytest.approx(other, abs=0.1)
    for source in (tiny_codes, data):
        with pytest.raises(ValueError, match=r"the recipe learns soft labels, and .* none"):
            evaluate(source, source if source is data else pictures, recipe="soft", **quick)


@pytest.mark.usefixtures("small_classifiers")
def test_opinions_are_those_of_the_teachers_over_both_views() -> None:
    data = make_data()
    data = replace(data, spec=replace(data.spec, mirror=True))
    pool = start_pool(PoolConfig(ages=(0, 0, 0)), data.spec, 0, CPU)
    teachers = oldest_members(pool, (40, 100, 60))
    assert teachers == list(pool.parts["pool"])[1:]
    found = opinions(teachers, data.images, data.spec)
    views = [data.spec.normalize(x / 255) for x in (data.images, data.images.flip(-1))]
    with torch.no_grad():
        wanted = torch.stack([m(x).softmax(1) for m in teachers for x in views]).mean(0)
    torch.testing.assert_close(found, wanted, atol=0.01, rtol=0)


def test_teachers_that_do_not_fit_are_refused() -> None:
    data = make_data()
    with pytest.raises(ValueError, match="no teacher was given: pass at least one classifier"):
        opinions([], data.images, data.spec)
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(data.images[0].numel(), 5))
    with pytest.raises(ValueError, match=r"a teacher must give logits of shape \(\d+, 3\), got \(\d+, 5\)"):
        opinions([teacher], data.images, data.spec)


@pytest.mark.usefixtures("small_classifiers")
def test_distill_stores_them_where_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconstruction, "Encoder", functools.partial(Encoder, width=8))
    small = {"reconstruction": {"steps": 2}, "matching": {"steps": 2}, "pool": {"ages": [4]}, "holdout": 0.0}
    small |= {"selection": {"checkpoints": 0}, "labels": {"soft": True}, "options": {**TINY, "code_channels": 2}}
    config = DistillConfig.from_dict(small)
    data = make_data(per_class=30)
    generator = distill(data, config=config, out=tmp_path / "run", device="cpu")
    assert generator.config.soft_labels
    assert not Generator.from_pretrained(tmp_path / "run" / "before_matching").config.soft_labels
    given = generator.bank.soft.float() / generator.bank.soft.float().sum(1, keepdim=True)
    labels = torch.repeat_interleave(generator.bank.counts)
    assert given[torch.arange(90), labels].mean() > 0.4  # the teacher learnt something; chance is a third
    assert given.max(1).values.min() < 0.99
    surer = distill(data, config=replace(config, labels=LabelsConfig(True, 0.5)), out=tmp_path / "surer", device="cpu")
    assert torch.equal(surer.bank.codes, generator.bank.codes)
    sure, unsure = (one.bank.opinions(torch.arange(90)).amax(1).mean() for one in (surer, generator))
    assert sure > 1.05 * unsure


@pytest.mark.parametrize("changes", [{"source": "noise"}, {"matching": {"steps": 0}}, {"pool": {"ages": [0]}}])
def test_they_need_codes_and_a_teacher(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"labels\.soft needs source='codes' and a pool that is trained"):
        DistillConfig.from_dict({"labels": {"soft": True}, **changes})
    with pytest.raises(ValueError, match=r"refining\.looks needs source='codes' and a pool that is trained"):
        DistillConfig.from_dict({"refining": {"looks": 10}, **changes})


def test_a_config_says_whether_they_are_there(soft: Generator) -> None:
    values = soft.config.to_dict()
    assert values["soft_labels"] is True
    assert GeneratorConfig.from_dict(values) == soft.config
    with pytest.raises(TypeError, match="soft_labels must be a bool, got 1"):
        GeneratorConfig.from_dict({**values, "soft_labels": 1})
    with pytest.raises(ValueError, match=r"labels\.soft must be True or False, got 1"):
        LabelsConfig(soft=1)
    for temperature in (0, -1.0, float("inf"), float("nan"), "2", True):
        with pytest.raises(ValueError, match=r"labels\.temperature must be a number in \(0, inf\), got"):
            LabelsConfig(temperature=temperature)
