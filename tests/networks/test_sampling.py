"""Drawing codes: the model's own distribution, and the same codes however they are asked for."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from conftest import make_prior
from dim_data.networks import Noise, PriorConfig, TokenPrior, group_rows, sample_codes, sampling


def gumbel(prior: TokenPrior) -> Noise:
    """Noise that is a pure function of key and place."""

    def noise(keys: Tensor, place: int) -> Tensor:
        rows = [torch.Generator().manual_seed(1000 * key + place) for key in keys.tolist()]
        shape = (prior.numbers, prior.levels)
        uniform = torch.stack([torch.rand(shape, generator=rng, dtype=torch.float32) for rng in rows]).clamp(
            1e-7, 1 - 1e-7
        )
        return -(-uniform.log()).log()

    return noise


def seen(prior: TokenPrior, keys: Tensor) -> Tensor:
    """Features that are a pure function of the key."""
    return 0.3 * torch.sin(keys[:, None] * torch.arange(1, 1 + prior.config.features)).to(torch.float32)


class Drawn(Dataset[Tensor]):
    """Codes by their key, drawn one by one or in batches."""

    def __init__(self) -> None:
        self.prior = make_prior((2, 4, 4), 4, width=64, layers=3)

    def codes(self, keys: Iterable[int]) -> Tensor:
        asked = torch.tensor(list(keys), dtype=torch.int64)
        return sample_codes(self.prior, asked % 2, asked % 6, seen(self.prior, asked), asked, gumbel(self.prior))

    def __len__(self) -> int:
        return 12

    def __getitem__(self, key: int) -> Tensor:
        return self.codes([key])[0]

    def __getitems__(self, keys: list[int]) -> list[Tensor]:
        return list(self.codes(keys))


@pytest.fixture
def threads() -> Iterable[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("shape", "levels", "patch"), [((1, 2, 2), 3, 2), ((1, 2, 2), 3, 1), ((1, 3, 3), 2, 2)])
def test_codes_come_as_often_as_the_model_says(shape: tuple[int, int, int], levels: int, patch: int) -> None:
    prior, count = make_prior(shape, levels, patch=patch), 6000
    numbers = torch.arange(levels ** (shape[1] * shape[2]))
    powers = levels ** torch.arange(shape[1] * shape[2])
    codes = (numbers[:, None] // powers % levels).view(-1, *shape)
    tokens, zeros = prior.tokenize(codes), torch.zeros(len(codes), dtype=torch.int64)
    features = seen(prior, torch.tensor([3]))
    logits = prior(tokens, zeros, zeros, features.expand(len(codes), -1))
    expected = count * prior.nats(logits, tokens).neg().double().exp()

    def noise(keys: Tensor, place: int) -> Tensor:
        rng = torch.Generator().manual_seed(int(keys.sum()) + place)
        return -(-torch.rand(len(keys), prior.numbers, levels, generator=rng).clamp(min=1e-7).log()).log()

    asked = torch.zeros(count, dtype=torch.int64)
    drawn = sample_codes(prior, asked, asked, features.expand(count, -1), torch.arange(count), noise)
    found = torch.bincount((drawn.flatten(1) * powers).sum(1), minlength=len(codes)).double()
    often = expected > 5
    chi = ((found - expected).square() / expected)[often].sum().item()
    freedom = int(often.sum())
    assert freedom > 5
    assert chi < freedom + 5 * (2 * freedom) ** 0.5
    assert abs(found[~often].sum() - expected[~often].sum()) < 5 * float(expected[~often].sum() + 1) ** 0.5


@pytest.mark.parametrize(("shape", "patch"), [((2, 4, 4), 2), ((3, 7, 7), 2), ((1, 4, 4), 1), ((2, 16, 16), 2)])
def test_step_by_step_the_logits_are_those_of_teacher_forcing(
    shape: tuple[int, int, int], patch: int, float32: None
) -> None:
    # With given noise every number is the argmax of its logits and the noise: another logit would show.
    prior = make_prior(shape, 5, width=64, patch=patch)
    keys = torch.arange(6)
    noise = gumbel(prior)
    drawn = sample_codes(prior, keys % 2, keys, seen(prior, keys), keys, noise)
    tokens = prior.tokenize(drawn)
    with torch.no_grad():
        logits = prior(tokens, keys % 2, keys, seen(prior, keys))
    asked = logits + torch.stack([noise(keys, place) for place in range(prior.tokens)], 1)
    best = asked.gather(3, tokens.long()[..., None])[..., 0]
    others = asked.scatter(3, tokens.long()[..., None], -torch.inf).amax(3)
    assert (best - others)[:, prior.real].min() > -1e-3
    assert torch.equal(prior.untokenize(prior.tokenize(drawn)), drawn)
    assert drawn.unique().tolist() == [0, 1, 2, 3, 4]


def test_a_code_does_not_depend_on_its_batch_or_the_threads(threads: None) -> None:
    data = Drawn()
    torch.set_num_threads(1)
    whole = data.codes(range(300))
    assert torch.equal(torch.cat([data.codes([key]) for key in (0, 7, 299)]), whole[[0, 7, 299]])
    assert torch.equal(data.codes(range(299, -1, -7)), whole[range(299, -1, -7)])
    for count in (2, 4):
        torch.set_num_threads(count)
        assert torch.equal(data.codes(range(300)), whole)
        assert torch.get_num_threads() == count
    assert len(whole.flatten(1).unique(dim=0)) > 200


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_worker_draws_the_same_codes(method: str, threads: None) -> None:
    data = Drawn()
    torch.set_num_threads(2)
    whole = data.codes(range(12))
    loader = DataLoader(data, 5, num_workers=1, multiprocessing_context=method)
    assert torch.equal(torch.cat(list(loader)), whole)


def test_what_the_caller_has_set_changes_nothing() -> None:
    data = Drawn()
    plain = data.codes(range(3))
    data.prior.train().requires_grad_(True)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
            assert torch.equal(data.codes(range(3)), plain)
    finally:
        torch.set_default_dtype(torch.float32)
    assert data.prior.training
    assert not data.codes(range(3)).requires_grad


def test_no_rows_are_drawn_where_none_are_asked_for() -> None:
    assert Drawn().codes([]).shape == (0, 2, 4, 4)


def test_groups_are_smaller_where_codes_are_large() -> None:
    cpu = torch.device("cpu")
    with torch.device("meta"):
        assert group_rows(TokenPrior(PriorConfig(), (6, 8, 8), 4, 10), cpu) == 128
        assert group_rows(TokenPrior(PriorConfig(), (6, 32, 32), 4, 10), cpu) == 16
        assert group_rows(TokenPrior(PriorConfig(1024, 32), (64, 32, 32), 256, 10), cpu) == 1
        assert group_rows(TokenPrior(PriorConfig(), (6, 8, 8), 4, 10), torch.device("cuda")) == 2048


def test_bfloat16_draws_nearly_the_same(float32: None, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Drawn()
    plain = data.codes(range(40))
    monkeypatch.setattr(sampling, "fast_dtype", lambda device: torch.bfloat16)
    rounded = data.codes(range(40))
    assert torch.equal(rounded[:7], data.codes(range(7)))
    assert not torch.equal(rounded, plain)
    assert (rounded[:, :, 0, 0] == plain[:, :, 0, 0]).float().mean() > 0.8
