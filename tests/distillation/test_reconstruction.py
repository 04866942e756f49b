from __future__ import annotations

import pytest
import torch
from torch import Tensor

from conftest import TINY, make_data, make_spec
from dim_data.distillation.choices import ReconstructionConfig
from dim_data.distillation.reconstruction import (
    Encoder,
    encode_all,
    quantize,
    reconstruct,
    reconstruction,
    reconstruction_parts,
)
from dim_data.format.config import GeneratorConfig
from dim_data.generator.model import Generator
from dim_data.protocol.states import LoopState

DATA = make_data()
CPU = torch.device("cpu")


def parts(device: torch.device = CPU) -> LoopState:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = Generator(GeneratorConfig(DATA.spec, "compact", "codes", TINY, 3)).to(device)
    return reconstruction_parts(generator, 0.9, 1, device)


@pytest.mark.parametrize("levels", [2, 3, 16])
def test_quantising_rounds_to_levels_and_lets_gradients_through(levels: int) -> None:
    latents = torch.linspace(-1, 1, 101).requires_grad_()
    out = quantize(latents, levels)
    steps = (out.detach() + 1) / 2 * (levels - 1)
    torch.testing.assert_close(steps, steps.round(), atol=1e-4, rtol=0)
    assert len(steps.round().unique()) == levels
    assert (out - latents).abs().max() <= 1 / (levels - 1) + 1e-6
    (out * torch.arange(101)).sum().backward()
    assert torch.equal(latents.grad, torch.arange(101.0))


def test_quantised_latents_are_what_codes_hold() -> None:
    state = parts()
    generator = state.parts["generator"]
    latents = torch.rand(5, *generator.decoder.latent_shape) * 2 - 1
    torch.testing.assert_close(
        quantize(latents, generator.bank.levels), generator.bank.unpack(generator.bank.pack(latents))
    )


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32), (3, 64), (1, 44), (3, 96)])
def test_the_encoder_ends_where_the_decoder_begins(channels: int, size: int) -> None:
    spec = make_spec(channels, size)
    generator = Generator(GeneratorConfig(spec, "compact", "codes", TINY, 3))
    shape = generator.decoder.latent_shape
    out = Encoder(spec, shape, width=8)(torch.rand(2, channels, size, size))
    assert out.shape == (2, *shape)
    assert out.abs().max() <= 1


def test_a_dark_image_set_does_not_saturate_the_encoder() -> None:
    spec = make_spec(1, 28)
    encoder = Encoder(spec, (2, 7, 7), width=8)
    with torch.no_grad():
        encoder.body[-3].bias.fill_(9.0)
    out = encoder(torch.rand(16, 1, 28, 28) * 0.02)
    assert (out.abs() > 0.99).float().mean() < 0.1
    assert out.std() > 0.3


def test_a_reconstruction_is_the_decoded_code() -> None:
    images, labels, state = DATA.images[:4] / 255, DATA.labels[:4], parts()
    generator, encoder = state.parts["generator"], state.parts["encoder"]
    copies = reconstruction(generator, encoder, images, labels)
    assert copies.shape == images.shape
    latents = generator.bank.unpack(generator.bank.pack(encoder(images)))
    torch.testing.assert_close(copies, generator(latents, labels), atol=1e-3, rtol=1e-3)


def test_pixels_are_learned(device: torch.device) -> None:
    state = parts(device)
    config = ReconstructionConfig(60, batch_size=8, lr=1e-2)
    records = list(reconstruct(state, DATA.to(device), config, augmentation=(), device=device))
    pixels = [record.losses["pixels"] for record in records]
    assert sum(pixels[-5:]) < 0.7 * sum(pixels[:5])
    assert [record.steps for record in records] == [60] * 60
    assert all(set(record.losses) == {"pixels"} for record in records)
    assert state.parts["average"].updates == state.parts["average_encoder"].updates == 60


def test_the_rate_rises_over_200_steps() -> None:
    state = parts()
    state.step = 99
    config = ReconstructionConfig(300, batch_size=2, lr=1e-3)
    next(reconstruct(state, DATA, config, augmentation=(), device=CPU))
    assert state.parts["optimizer"].param_groups[0]["lr"] == pytest.approx(0.5e-3)
    state.step = 250
    next(reconstruct(state, DATA, config, augmentation=(), device=CPU))
    assert state.parts["optimizer"].param_groups[0]["lr"] == pytest.approx(1e-3)


def test_every_image_gets_its_code(device: torch.device) -> None:
    state = parts(device)
    generator, encoder = state.parts["generator"], state.parts["encoder"]
    data = DATA.subset(torch.arange(50)).to(device)
    stored = encode_all(generator, encoder, data, device)
    assert stored.config.codes == 50
    assert stored.bank.counts.tolist() == torch.bincount(data.labels).tolist()
    order = data.labels.argsort(stable=True)

    def expected(images: Tensor) -> Tensor:
        with torch.no_grad():
            return generator.bank.pack(encoder(images / 255).float())

    same = (stored.bank.unpack(stored.bank.codes) - generator.bank.unpack(expected(data.images[order]))).abs() < 1e-6
    assert same.float().mean() > 0.99
