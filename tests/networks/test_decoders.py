"""Which sizes decoders reach."""

from __future__ import annotations

import pytest
import torch

from conftest import TINY, make_spec
from dim_data import Generator, GeneratorConfig
from dim_data.networks import ARCHITECTURES, reached_sizes
from dim_data.networks.decoders import SmoothShuffle, base_size


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_the_sizes_reached_are_those_that_can_be_built(name: str) -> None:
    built = []
    for size in range(28, 129):
        try:
            with torch.device("meta"):
                Generator(GeneratorConfig(make_spec(1, size), name, options={"width": 8}))
        except ValueError:
            continue
        built.append(size)
    assert tuple(built) == reached_sizes(name)


@pytest.mark.parametrize(
    ("size", "base"), [(32, 8), (32, 4), (64, 16), (64, 8), (128, 32), (128, 8), (36, 9), (96, 24)]
)
def test_a_base_that_is_asked_for(size: int, base: int) -> None:
    options = {"width": 8, "top_width": 4, "blocks": 1, "code_channels": 2, "base": base}
    generator = Generator(GeneratorConfig(make_spec(3, size), "compact", "codes", options, codes=3))
    assert generator.decoder.latent_shape == (2, base, base)
    labels = torch.arange(3)
    assert generator(torch.zeros(3, 2, base, base), labels).shape == (3, 3, size, size)


@pytest.mark.parametrize(("size", "base"), [(32, 16), (32, 7), (64, 32), (36, 8), (128, 24), (28, 14)])
def test_a_base_that_doubling_does_not_lead_from(size: int, base: int) -> None:
    options = {"width": 8, "base": base}
    with pytest.raises(
        ValueError, match=f"images of {size} pixels cannot be reached from a base of {base} by doubling"
    ):
        Generator(GeneratorConfig(make_spec(3, size), "compact", "codes", options, codes=3))


def test_the_base_that_is_not_asked_for_is_as_it_was() -> None:
    found = {size: base_size(size) for size in (28, 32, 48, 64, 96, 120, 128)}
    assert found == {28: 7, 32: 8, 48: 6, 64: 8, 96: 6, 120: 15, 128: 8}


def finest(images: torch.Tensor) -> float:
    """The strongest wave that repeats every two pixels along a side or both, away from the border."""
    inner = images[..., 8:-8, 8:-8]
    signs = torch.tensor([1.0, -1.0]).repeat(inner.shape[-1] // 2)
    return max(
        (inner * wave).mean((2, 3)).abs().max().item() for wave in (signs, signs[:, None], signs[:, None] * signs)
    )


@pytest.mark.parametrize("size", [32, 36, 64])
def test_a_smooth_doubling_paints_no_pattern_of_its_own(size: int) -> None:
    spec, found = make_spec(3, size), []
    for smooth in (0, 1):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            decoder = Generator(GeneratorConfig(spec, "compact", "codes", {**TINY, "smooth": smooth}, codes=3)).decoder
        latents = torch.full((2, *decoder.latent_shape), 0.5)
        found.append(finest(decoder(latents, torch.zeros(2, dtype=torch.long))))
    assert found[0] > 1e-3
    assert found[1] < 0.02 * found[0]  # not 0: the border is seen from far


def test_a_smooth_shuffle_keeps_brightness() -> None:
    flat = torch.ones(1, 8, 3, 5)
    assert torch.allclose(SmoothShuffle()(flat)[..., 1:-1, 1:-1], torch.ones(1, 2, 4, 8))


def test_what_an_older_file_does_not_name_is_as_it_was() -> None:
    made = []
    for options in (TINY, {**TINY, "smooth": 0}, {**TINY, "smooth": 1}):
        made.append(Generator(GeneratorConfig(make_spec(3, 32), "compact", "codes", options, codes=3)))
        made[-1].load_state_dict(made[0].state_dict())
    latents, labels = torch.rand(3, *made[0].decoder.latent_shape) * 2 - 1, torch.arange(3)
    old, plain, smooth = (one(latents, labels) for one in made)
    assert torch.equal(old, plain)
    assert not torch.equal(old, smooth)


def test_the_sizes_that_the_readme_states() -> None:
    assert reached_sizes("compact") == tuple(range(28, 129, 4))
    assert reached_sizes("dim") == (*range(28, 33), *range(49, 65), *range(97, 129))
