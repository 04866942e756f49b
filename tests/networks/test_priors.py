"""A learned prior: its config, its tokens, its likelihood."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import make_prior
from dim_data.networks import PriorConfig, TokenPrior


def every_code(shape: tuple[int, int, int], levels: int) -> Tensor:
    channels, base, _ = shape
    return torch.tensor(list(itertools.product(range(levels), repeat=channels * base * base))).view(-1, *shape)


def probabilities(prior: TokenPrior, codes: Tensor, label: int = 0, cluster: int = 0) -> Tensor:
    """Of code maps (B, *shape), given class and cluster: (B,)."""
    tokens = prior.tokenize(codes)
    labels, clusters = torch.full((len(codes),), label), torch.full((len(codes),), cluster)
    return prior.nats(prior(tokens, labels, clusters), tokens).neg().double().exp()


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"width": 4}, ValueError, "option 'width' of a prior must be 8 to 1024, got 4"),
        ({"width": 100}, ValueError, "option 'width' of a prior must be a multiple of 64 or less, got 100"),
        ({"layers": 10**9}, ValueError, "option 'layers' of a prior must be 1 to 32, got 1000000000"),
        ({"clusters": True}, TypeError, "option 'clusters' of a prior must be an int, got True"),
        ({"hidden": 4.0}, TypeError, "option 'hidden' of a prior must be an int, got 4.0"),
    ],
)
def test_a_config_out_of_bounds_is_refused(values: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        PriorConfig(**values)


def test_a_config_survives_json_and_refuses_other_keys() -> None:
    config = PriorConfig(width=64, clusters=1)
    assert PriorConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match="a prior's config has the keys"):
        PriorConfig.from_dict({**config.to_dict(), "dropout": 0.1})
    with pytest.raises(ValueError, match="a prior's config has the keys"):
        PriorConfig.from_dict({"width": 64})
    with pytest.raises(TypeError, match="must be a mapping, got int"):
        PriorConfig.from_dict(3)  # type: ignore[arg-type]


def test_codes_of_too_many_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="patch=1 makes 1024 tokens of codes of 32x32; the limit is 256: take"):
        TokenPrior(PriorConfig(patch=1), (1, 32, 32), 4, 2)


@pytest.mark.parametrize("shape", [(3, 4, 4), (2, 7, 7), (1, 5, 5), (1, 32, 32)])
@pytest.mark.parametrize("patch", [2, 4])
def test_tokens_are_the_patches_and_turn_back_into_codes(shape: tuple[int, int, int], patch: int) -> None:
    prior = make_prior(shape, 4, patch=patch)
    codes = torch.randint(4, (5, *shape), dtype=torch.uint8)
    tokens = prior.tokenize(codes)
    assert tokens.shape == (5, prior.tokens, prior.numbers)
    assert tokens.dtype == torch.uint8
    assert torch.equal(prior.untokenize(tokens), codes)
    if prior.tokens > 1:  # the second is the patch to the right of the first, its channels at one place come first
        assert torch.equal(tokens[:, 1, : shape[0]], codes[:, :, 0, patch])
    assert int(prior.real.sum()) == codes[0].numel()


@pytest.mark.parametrize(
    ("shape", "levels", "patch"), [((1, 2, 2), 3, 2), ((1, 2, 2), 3, 1), ((2, 1, 1), 7, 1), ((1, 3, 3), 2, 2)]
)
def test_the_likelihood_of_all_codes_sums_to_one(shape: tuple[int, int, int], levels: int, patch: int) -> None:
    prior = make_prior(shape, levels, patch=patch)
    found = probabilities(prior, every_code(shape, levels), label=1, cluster=4)
    assert found.sum().item() == pytest.approx(1, abs=1e-5)
    assert found.max() > 3 * found.mean()


def test_a_number_is_told_what_comes_before_it_and_nothing_else() -> None:
    prior = make_prior((1, 4, 4), 3)
    tokens = torch.randint(3, (1, 4, 4))
    labels = clusters = torch.zeros(1, dtype=torch.int64)
    before = prior(tokens, labels, clusters).flatten(1, 2)
    for place in range(16):
        changed = tokens.clone()
        changed.view(-1)[place] = (changed.view(-1)[place] + 1) % 3
        after = prior(changed, labels, clusters).flatten(1, 2)
        assert torch.equal(after[:, : place + 1], before[:, : place + 1])
        if place < 15:
            assert not torch.equal(after[:, place + 1], before[:, place + 1])


def test_class_cluster_and_kind_change_what_is_expected() -> None:
    prior = make_prior()
    tokens, one = torch.zeros(1, 4, 8, dtype=torch.int64), torch.ones(1, dtype=torch.int64)
    plain = prior(tokens, 0 * one, 0 * one)
    assert torch.equal(plain, prior(tokens, 0 * one, 0 * one, kinds=0 * one))
    for other in ((one, 0 * one), (0 * one, one), (2 * one, 0 * one), (0 * one, 6 * one)):  # the last two: not told
        assert not torch.equal(plain, prior(tokens, *other))
    assert not torch.equal(plain, prior(tokens, 0 * one, 0 * one, kinds=one))
    assert torch.equal(plain, prior(tokens, 0 * one, 0 * one, torch.zeros(1, 5)))
    assert not torch.equal(plain, prior(tokens, 0 * one, 0 * one, torch.ones(1, 5)))


def test_corrupted_inputs_and_dropout_change_what_is_told_and_not_what_is_asked() -> None:
    prior = make_prior((1, 4, 4))
    tokens, zero = torch.zeros(1, 4, 4, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
    plain, inputs = prior(tokens, zero, zero), tokens.clone()
    inputs[:, 0] = 2
    other = prior(tokens, zero, zero, inputs=inputs)
    assert torch.equal(other[:, 0], plain[:, 0])
    assert not torch.equal(other[:, 1], plain[:, 1])
    masks = torch.ones(2, 2, 1, 1, 16)
    assert torch.equal(prior(tokens, zero, zero, masks=masks), plain)
    masks[0, 0, 0, 0, 0] = 0
    assert not torch.equal(prior(tokens, zero, zero, masks=masks), plain)


def test_a_hostile_config_allocates_nothing_on_the_meta_device() -> None:
    with torch.device("meta"):
        prior = TokenPrior(PriorConfig(1024, 32, 1024, 1024, 4), (64, 32, 32), 256, 1000)
    assert sum(p.numel() for p in prior.parameters()) > 10**11
