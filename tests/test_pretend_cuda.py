"""The paths that a GPU's user takes, on a GPU that is not there: no tensor is left behind on another device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import TINY, make_data
from dim_data import DistilledDataset, DistilledLoader, Generator, distill, evaluate
from dim_data.distillation import (
    AdversarialConfig,
    DistillConfig,
    LabelsConfig,
    MatchingConfig,
    PoolConfig,
    ReconstructionConfig,
    SelectionConfig,
    StoppedError,
)
from dim_data.generator.grids import sample_grid
from pretend_cuda import CUDA, Pretend, pretend_cuda

pytestmark = [
    pytest.mark.usefixtures("small_classifiers"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU is really there: --device cuda"),
    pytest.mark.skipif(not hasattr(torch._C, "_ensureCUDADeviceGuardSet"), reason="torch is too old to pretend"),
]

LABELS, SERIALS = torch.tensor([0, 2, 1, 2]), torch.tensor([0, 5, 1, 1])
GAME = {
    "first": "adversarial",
    "source": "noise",
    "pool": PoolConfig(ages=(0,), aging_steps=1),
    "adversarial": AdversarialConfig(2, 4, discriminator_width=8),
    "reconstruction": ReconstructionConfig(),
}
RUNS: dict[str, dict[str, Any]] = {
    "codes": {"source": "codes", "labels": LabelsConfig(soft=True)},
    "noise": {"source": "noise"},
    "paper": {**GAME, "architecture": "dim", "options": {"width": 4, "latent_dim": 16}},
}


def test_devices_do_not_mix() -> None:
    with pretend_cuda():
        there, here = torch.ones(3, device="cuda"), torch.ones(3)
        assert (there + 1).tolist() == [2, 2, 2]
        assert {x.device for x in (there, there * 2, torch.zeros_like(there), here.to("cuda"))} == {CUDA}
        assert {x.device.type for x in (here, there.cpu(), there.to("cpu").exp())} == {"cpu"}
        assert there[torch.tensor([1])].device == CUDA
        for mix in (lambda: there + here, lambda: here.mul_(there), lambda: here[there.long()]):
            with pytest.raises(RuntimeError, match="same device"):
                mix()
        with pytest.raises(RuntimeError, match="for generator"):
            torch.rand(3, device="cuda", generator=torch.Generator())
        model = torch.nn.Linear(3, 1).to("cuda")
        model(there).sum().backward()
        torch.optim.SGD(model.parameters(), 1.0).step()
        assert model.weight.grad is not None
        assert model.weight.grad.device == model.weight.device == CUDA


@pytest.mark.usefixtures("float32")  # the GPU that is pretended has no bfloat16
def test_pictures_are_the_same(tiny_codes: Generator, tiny_noise: Generator, tmp_path: Path) -> None:
    for generator in (tiny_codes, tiny_noise):
        folder = generator.save_pretrained(tmp_path / generator.config.source)
        wanted = Generator.from_pretrained(folder).synthesize(LABELS, SERIALS)
        with pretend_cuda():
            found = Generator.from_pretrained(folder, device="cuda")
            pictures = found.synthesize(LABELS, SERIALS)
            assert pictures.device == CUDA
            assert sample_grid(found).size
            again = Generator.from_pretrained(found.save_pretrained(tmp_path / "again", dtype=torch.float32))
            if generator is tiny_codes:
                assert found.forget_codes(rank=2).synthesize(LABELS, SERIALS).device == CUDA
                assert found.keep_codes(9).synthesize(LABELS, SERIALS).device == CUDA
        assert (pictures.cpu().int() - wanted.int()).abs().max() <= 1  # other chunks
        assert torch.equal(again.synthesize(LABELS, SERIALS), wanted)


@pytest.mark.parametrize("options", [{}, {"cache": True}, {"soft_labels": True}, {"dtype": torch.float16}])
def test_batches_are_made_there(tiny_codes: Generator, tmp_path: Path, options: dict[str, Any]) -> None:
    latents, labels = torch.rand(30, *tiny_codes.decoder.latent_shape) * 2 - 1, torch.arange(30) % 3
    soft = torch.full((30, 3), 1 / 3)
    folder = tiny_codes.store(latents, labels, soft).save_pretrained(tmp_path)
    with pretend_cuda():
        loader = DistilledLoader(folder, 4, ipc=3, **options)  # CUDA where there is one
        loader.transform = loader.spec.normalize
        batches = iter(loader)
        next(batches)
        state = loader.state_dict()
        assert len(list(batches)) == 2
        resumed = DistilledLoader(folder, 4, ipc=3, **options)
        resumed.load_state_dict(state)
        rest = list(resumed)
        assert len(rest) == 2
        assert all(isinstance(x, Pretend) for batch in rest for x in batch)
        options.pop("dtype", None)
        image, _ = DistilledDataset(folder, ipc=3, device="cuda", **options)[4]
        assert image.size == (32, 32)


@pytest.mark.parametrize("recipe", ["tuned", "soft", "muon", "paper"])
def test_classifiers_are_trained_there(tiny_codes: Generator, recipe: str) -> None:
    data = make_data(3, 32)
    data = replace(data, soft=torch.nn.functional.one_hot(data.labels, 3).float())
    with pretend_cuda():
        assert 0 <= evaluate(data, data, recipe=recipe, ipc=2, epochs=2, seeds=(0,)).mean <= 1
        if recipe != "soft":
            there = tiny_codes.store(torch.zeros(3, *tiny_codes.decoder.latent_shape), torch.arange(3)).to("cuda")
            assert 0 <= evaluate(there, data, "resnet10", recipe, ipc=2, epochs=2, seeds=(0,)).mean <= 1


@pytest.mark.parametrize("kind", RUNS)
def test_generators_are_made_there_and_resumed(kind: str, tmp_path: Path) -> None:
    small = {"reconstruction": ReconstructionConfig(2, 4), "matching": MatchingConfig(2, 4)}
    pooled = {"pool": PoolConfig(ages=(2,)), "selection": SelectionConfig(1, 12)}
    config = DistillConfig(**{"options": {**TINY, "code_channels": 2}, **small, **pooled, **RUNS[kind]})
    data, steps = make_data(per_class=12), iter(range(9))
    with pretend_cuda():
        with pytest.raises(StoppedError):
            distill(data, config=config, out=tmp_path, should_stop=lambda: next(steps) == 2)
        made = distill(data, config=config, out=tmp_path)
        assert next(made.parameters()).device == CUDA
    assert Generator.from_pretrained(tmp_path / "generator").config == made.config
