from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from conftest import TINY, make_data, make_spec
from dim_data.config import GeneratorConfig
from dim_data.generator import Generator
from dim_data.loops import LoopState
from dim_data.reconstruction import (
    Encoder,
    encode_all,
    gaussian_kl,
    quantise,
    reconstruct,
    reconstruction_parts,
    reconstruction_terms,
)

DATA = make_data()
CPU = torch.device("cpu")


def parts(source: str, device: torch.device = CPU) -> LoopState:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = GeneratorConfig(DATA.spec, "compact", source, TINY, 3 if source == "codes" else 0)
        generator = Generator(config).to(device)
    return reconstruction_parts(generator, 2e-3, 0.9, 1, device)


@pytest.mark.parametrize("levels", [2, 3, 16])
def test_quantising_rounds_to_levels_and_lets_gradients_through(levels: int) -> None:
    latents = torch.linspace(-1, 1, 101).requires_grad_()
    out = quantise(latents, levels)
    steps = (out.detach() + 1) / 2 * (levels - 1)
    torch.testing.assert_close(steps, steps.round(), atol=1e-4, rtol=0)
    assert len(steps.round().unique()) == levels
    assert (out - latents).abs().max() <= 1 / (levels - 1) + 1e-6
    (out * torch.arange(101)).sum().backward()
    assert torch.equal(latents.grad, torch.arange(101.0))


def test_quantised_latents_are_what_codes_hold() -> None:
    state = parts("codes")
    generator = state.parts["generator"]
    latents = torch.rand(5, *generator.decoder.latent_shape) * 2 - 1
    torch.testing.assert_close(quantise(latents, generator.code_levels), generator.unpack(generator.pack(latents)))


def test_the_divergence_is_that_of_gaussians() -> None:
    mean, log_variance = torch.randn(7, 5), torch.randn(7, 5)
    normal = Normal(mean, (log_variance / 2).exp())
    expected = kl_divergence(normal, Normal(torch.zeros(5), torch.ones(5))).sum(1).mean()
    torch.testing.assert_close(gaussian_kl(mean, log_variance), expected)
    assert gaussian_kl(torch.zeros(2, 3), torch.zeros(2, 3)) == 0


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32), (3, 64), (1, 44), (3, 96)])
@pytest.mark.parametrize("source", ["codes", "noise"])
def test_the_encoder_ends_where_the_decoder_begins(source: str, channels: int, size: int) -> None:
    spec = make_spec(channels, size)
    generator = Generator(GeneratorConfig(spec, "compact", source, TINY, 3 if source == "codes" else 0))
    shape = generator.decoder.latent_shape
    encoder = Encoder(spec, shape, generator.decoder.map_shape[-1], width=8)
    out = encoder(torch.rand(2, channels, size, size))
    if source == "codes":
        assert out.shape == (2, *shape)
        assert out.abs().max() <= 1
    else:
        assert out.shape == (2, 2 * shape[0])


def test_noise_reconstructions_vary_with_the_noise_and_codes_do_not() -> None:
    images, labels = DATA.images[:4] / 255, DATA.labels[:4]
    for source in ("codes", "noise"):
        state = parts(source)
        generator, encoder = state.parts["generator"], state.parts["encoder"]
        size = generator.decoder.latent_shape[0]
        (first, divergence), (second, _) = (
            reconstruction_terms(generator, encoder, images, labels, torch.full((4, size), x)) for x in (0.0, 1.0)
        )
        assert first.shape == images.shape
        assert torch.equal(first, second) == (source == "codes")
        assert (divergence == 0) == (source == "codes")


@pytest.mark.parametrize("source", ["codes", "noise"])
def test_pixels_are_learned(source: str, device: torch.device) -> None:
    state = parts(source, device)
    settings: dict[str, Any] = {"batch_size": 8, "lr": 1e-2, "kl_weight": 1e-4, "augmentation": (), "device": device}
    records = list(reconstruct(state, DATA.to(device), 60, **settings))
    pixels = [record.losses["pixels"] for record in records]
    assert sum(pixels[-5:]) < 0.7 * sum(pixels[:5])
    assert [record.steps for record in records] == [60] * 60
    wanted = {"pixels"} if source == "codes" else {"pixels", "divergence"}
    assert all(set(record.losses) == wanted for record in records)
    assert state.parts["average"].updates == state.parts["average_encoder"].updates == 60


def test_the_rate_rises_over_200_steps() -> None:
    state = parts("codes")
    state.step = 99
    settings: dict[str, Any] = {"batch_size": 2, "lr": 1e-3, "kl_weight": 0, "augmentation": (), "device": CPU}
    next(reconstruct(state, DATA, 300, **settings))
    assert state.parts["optimiser"].param_groups[0]["lr"] == pytest.approx(0.5e-3)
    state.step = 250
    next(reconstruct(state, DATA, 300, **settings))
    assert state.parts["optimiser"].param_groups[0]["lr"] == pytest.approx(1e-3)


def test_every_image_gets_its_code(device: torch.device) -> None:
    state = parts("codes", device)
    generator, encoder = state.parts["generator"], state.parts["encoder"]
    data = DATA.subset(torch.arange(50)).to(device)
    stored = encode_all(generator, encoder, data, device)
    assert stored.config.codes == 50
    assert stored.counts.tolist() == torch.bincount(data.labels).tolist()
    order = data.labels.argsort(stable=True)

    def expected(images: Tensor) -> Tensor:
        with torch.no_grad():
            return generator.pack(encoder(images / 255).float())

    same = (stored.unpack(stored.codes) - generator.unpack(expected(data.images[order]))).abs() < 1e-6
    assert same.float().mean() > 0.99
