"""Images that are mapped from a file: what is distilled from them and measured on them is as from memory."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import TINY, make_data
from dim_data.distillation import candidates, reconstruction
from dim_data.distillation.presets import DistillConfig
from dim_data.distillation.reconstruction import Encoder
from dim_data.distillation.refining import refine_codes
from dim_data.distillation.stages import distill
from dim_data.generator import Generator, opinions
from dim_data.images import ImageRows, LabelledImages
from dim_data.networks.classifiers import ConvNet
from dim_data.protocol import evaluate

DATA = make_data(per_class=40)
RUN: dict[str, Any] = {
    "options": {**TINY, "code_channels": 2, "latent_dim": 8},
    "pool": {"classifiers": ("convnet3",), "ages": (3,)},
    "reconstruction": {"steps": 4, "batch_size": 4},
    "matching": {"steps": 4, "batch_size": 4},
    "selection": {"checkpoints": 2, "images": 12},
    "holdout": 0.2,
}
KINDS: dict[str, dict[str, Any]] = {
    "codes": {"labels": {"soft": True}, "refining": {"looks": 2}, "max_codes": 20},
    "prior": {"source": "noise", "prior": {"epochs": 2, "batch_size": 8}},
}


class NeverWhole(ImageRows):
    """Fails where more than a batch is asked for at once, other than by ``split``."""

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        if not isinstance(index, slice) and len(found) > 60:
            raise MemoryError(f"{len(found)} images at once")
        return found

    def _with(self, rows: Any, channels: int) -> NeverWhole:
        other = super()._with(rows, channels)
        other.__class__ = NeverWhole
        return other  # type: ignore[return-value]


def mapped(data: LabelledImages) -> LabelledImages:
    return replace(data, images=NeverWhole(data.images[:].numpy()))


@pytest.fixture(autouse=True)
def small(small_classifiers: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconstruction, "Encoder", partial(Encoder, width=8))
    monkeypatch.setattr(candidates, "save_curves", lambda metrics, path: None)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_generator_is_distilled(kind: str, tmp_path: Path) -> None:
    config = DistillConfig.from_dict({**RUN, **KINDS[kind]})
    one = distill(DATA, config=config, out=tmp_path / "memory")
    two = distill(mapped(DATA), config=config, out=tmp_path / "mapped")
    assert_equal(one, two)
    # A run goes on, whichever way its images are read now.
    assert_equal(one, distill(mapped(DATA), config=config, out=tmp_path / "memory"))


def assert_equal(one: Generator, two: Generator) -> None:
    for (name, a), b in zip(one.state_dict().items(), two.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("recipe", ["tuned", "muon_soft"])
def test_the_same_accuracy_is_measured(recipe: str) -> None:
    soft = torch.rand(len(DATA), 3, generator=torch.Generator().manual_seed(0)).softmax(1)
    train = replace(DATA, soft=soft)
    one, two = (
        evaluate(train, test, recipe=recipe, ipc=4, epochs=3, seeds=(0,))
        for train, test in ((train, DATA), (mapped(train), mapped(DATA)))
    )
    assert one.accuracies == two.accuracies


def test_codes_are_refined_and_images_labelled_alike(tiny_codes: Generator) -> None:
    data, teacher = make_data(3, 32, per_class=40), ConvNet(tiny_codes.spec, width=8)
    refined = [
        refine_codes(tiny_codes, images, [teacher], looks=1)
        for images in (data, replace(data, images=ImageRows(data.images.numpy())))
    ]
    assert_equal(*refined)
    said = [opinions([teacher], images, data.spec, batch_size=16) for images in (data.images, mapped(data).images)]
    assert torch.equal(*said)
