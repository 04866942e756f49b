"""Tiny generators and image sets, made offline, and the device to test on."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from dim_data.format.config import GeneratorConfig
from dim_data.generator.model import Generator
from dim_data.images.real import LabelledImages
from dim_data.images.specs import ImageSpec
from dim_data.networks import PriorConfig, TokenPrior, compute
from dim_data.networks.classifiers import CLASSIFIERS, ConvNet, ResNet

# Compiling a network takes longer than a tiny test; the one test of compilation turns it on again.
os.environ.setdefault("DIM_DATA_COMPILE", "0")
# Tiny networks gain nothing from threads, and processes side by side lose much by them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

TINY = {"width": 8, "top_width": 4, "blocks": 1}
SMALL_PRIOR = {"width": 16, "layers": 2, "hidden": 8, "clusters": 3, "features": 5, "anchors": 4}
# Not narrower: torch 2.14's gradient of a 1x1 convolution of 4 channels by strides crashes on some AMD processors.
SMALL_CLASSIFIERS = {"convnet3": partial(ConvNet, width=8), "resnet10": partial(ResNet, blocks=1, width=8)}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="device to run the tests on, such as cuda")
    parser.addoption("--bfloat16", action="store_true", help="compute as on a CPU that has bfloat16, if slowly")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--bfloat16"):
        found = torch.cpu.get_capabilities()
        torch.cpu.get_capabilities = lambda: {**found, "amx_bf16": True}


@pytest.fixture(scope="session", autouse=True)
def interrupts() -> None:
    """Ctrl-C as anywhere else: pytest-xdist has its workers ignore it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute as on a CPU without bfloat16: for bounds that its rounding would exceed."""
    monkeypatch.setattr(compute, "_cpu_has_bfloat16", lambda: False)


@pytest.fixture
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.config.getoption("--device"))


def stopping(stage: str, step: int) -> dict[str, Any]:
    """Arguments that stop a training after that step of that stage."""
    seen: list[Any] = []
    return {"on_step": seen.append, "should_stop": lambda: (seen[-1].stage, seen[-1].step) == (stage, step)}


def make_spec(channels: int = 3, size: int = 32, classes: int = 3) -> ImageSpec:
    names = tuple(f"class{i}" for i in range(classes))
    return ImageSpec("tiny", channels, size, names, (0.5,) * channels, (0.25,) * channels)


def make_data(
    channels: int = 1, size: int = 28, classes: int = 3, per_class: int = 20, seed: int = 0
) -> LabelledImages:
    """Noisy pictures of one bright bar each, whose height in the picture tells the class."""
    spec, rng = make_spec(channels, size, classes), torch.Generator().manual_seed(seed)
    labels = torch.arange(classes * per_class) % classes
    images = torch.randint(0, 100, (len(labels), channels, size, size), generator=rng)
    bar = size // classes
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, label * bar : label * bar + bar // 2] += 150
    return LabelledImages(images.to(torch.uint8), labels, spec)


def make_generator(config: GeneratorConfig) -> Generator:
    """A generator whose weights are scaled up until pictures differ visibly."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        generator = Generator(config)
        with torch.no_grad():
            for p in generator.parameters():
                p.mul_(2.0)
        if config.source == "codes":
            labels = torch.arange(config.codes) % config.spec.num_classes
            latents = torch.rand(config.codes, *generator.decoder.latent_shape) * 2 - 1
            generator = generator.store(latents, labels)
    return generator.requires_grad_(False).eval()


def make_prior(
    shape: tuple[int, int, int] = (2, 4, 4), levels: int = 3, classes: int = 2, **options: int
) -> TokenPrior:
    """A prior whose weights are scaled up until what it expects is far from even."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        prior = TokenPrior(PriorConfig(**{**SMALL_PRIOR, **options}), shape, levels, classes)
        with torch.no_grad():
            for name, p in prior.named_parameters():
                p.mul_(1 if "norm" in name else 8)
            prior.last.mul_(0.5)
    return prior.requires_grad_(False).eval()


@pytest.fixture
def small_classifiers(monkeypatch: pytest.MonkeyPatch) -> None:
    """``convnet3`` with 8 channels in place of 128, and ``resnet10`` with 8 in place of 64."""
    for name, builder in SMALL_CLASSIFIERS.items():
        monkeypatch.setitem(CLASSIFIERS, name, builder)


@pytest.fixture(scope="session")
def tiny_noise() -> Generator:
    """Grey, 28 pixels, 3 classes."""
    return make_generator(GeneratorConfig(make_spec(1, 28), "compact", "noise", {**TINY, "latent_dim": 8}))


@pytest.fixture(scope="session")
def tiny_codes() -> Generator:
    """RGB, 32 pixels, 3 classes of 40 codes each."""
    return make_generator(GeneratorConfig(make_spec(3, 32), "compact", "codes", TINY, codes=120))


@pytest.fixture(scope="session")
def tiny_shaped(tiny_codes: Generator) -> Generator:
    """The same without its codes: noise, shaped by a Gaussian for each class."""
    return tiny_codes.forget_codes(rank=8)


@pytest.fixture(scope="session")
def tiny_prior(tiny_codes: Generator) -> Generator:
    """The same without its codes: noise, through a prior of three clusters."""
    return tiny_codes.with_prior(make_prior(tiny_codes.decoder.latent_shape, tiny_codes.bank.levels, 3))


@pytest.fixture
def noise_folder(tiny_noise: Generator, tmp_path: Path) -> Path:
    return tiny_noise.save_pretrained(tmp_path / "noise", dtype=torch.float32)


@pytest.fixture
def codes_folder(tiny_codes: Generator, tmp_path: Path) -> Path:
    return tiny_codes.save_pretrained(tmp_path / "codes", dtype=torch.float32)
