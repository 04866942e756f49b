from __future__ import annotations

import numpy as np
import pytest
import torch

from dim_data.generator.draws import bank_index, hash_keys, normal, permute, uniform

KEYS = [-6476030902938463396, -6438524427887825608, 893380288670012697]
UNIFORM = [
    [0.3731914758682251, 0.9642809629440308],
    [0.11539655923843384, 0.3227662444114685],
    [0.5018088221549988, 0.6927244067192078],
]
ORDER = [5, 3, 2, 9, 0, 7, 6, 8, 1, 4]
NORMAL = [-0.901618480682373, 1.9761829376220703, -0.34829938411712646]


def keys_of(count: int, seed: int = 0) -> torch.Tensor:
    return hash_keys(seed, torch.arange(count))


def test_draws_never_change_between_versions() -> None:
    # These numbers choose the pictures that people trained on.
    keys = hash_keys(7, torch.tensor([0, 1, 5]), torch.tensor([3, 2, 1 << 40]))
    assert keys.tolist() == KEYS
    assert uniform(keys, 2).tolist() == UNIFORM
    ten = torch.full((10,), 10)
    assert permute(torch.arange(10), ten, torch.full_like(ten, 1234)).tolist() == ORDER
    assert torch.allclose(normal(keys, 3)[0], torch.tensor(NORMAL), atol=1e-5)


def test_uniform_covers_the_unit_interval_evenly() -> None:
    u = uniform(keys_of(2000), 50)
    assert u.shape == (2000, 50)
    assert u.dtype == torch.float32
    assert u.min() >= 0
    assert u.max() < 1
    counts = torch.histc(u.flatten(), 20, 0, 1)
    assert (counts / 5000 - 1).abs().max() < 0.1


@pytest.mark.parametrize("count", [1, 2, 63, 64])
def test_normal_has_the_moments_of_a_normal(count: int) -> None:
    z = normal(keys_of(200_000 // count), count)
    assert z.shape == (200_000 // count, count)
    assert z.isfinite().all()
    assert abs(z.mean()) < 0.01
    assert abs(z.var() - 1) < 0.02
    assert abs((z**3).mean()) < 0.05
    assert abs((z**4).mean() - 3) < 0.15


def test_normal_numbers_of_a_key_and_of_neighbouring_keys_are_uncorrelated() -> None:
    z = normal(keys_of(5000), 8)
    together = torch.cat([z[:-1], z[1:]], 1)
    correlation = torch.corrcoef(together.T) - torch.eye(16)
    assert correlation.abs().max() < 0.07


def test_a_draw_does_not_depend_on_its_batch() -> None:
    keys = keys_of(300)
    assert torch.equal(normal(keys, 9)[100:101], normal(keys[100:101], 9))
    counts = torch.full((50,), 50)
    whole = permute(torch.arange(50), counts, torch.full_like(counts, 5))
    one = permute(torch.tensor([17]), torch.tensor([50]), torch.tensor([5]))
    assert whole[17] == one[0]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 10, 64, 101, 1000])
def test_permute_is_a_bijection(count: int) -> None:
    for key in (0, 1, -5, 1 << 62):
        counts = torch.full((count,), count)
        out = permute(torch.arange(count), counts, torch.full_like(counts, key))
        assert out.sort().values.tolist() == list(range(count))


def test_permute_mixes_counts_in_one_batch() -> None:
    counts = torch.tensor([5] * 5 + [8] * 8)
    positions = torch.cat([torch.arange(5), torch.arange(8)])
    out = permute(positions, counts, torch.full_like(counts, 3))
    assert out[:5].sort().values.tolist() == list(range(5))
    assert out[5:].sort().values.tolist() == list(range(8))


def test_permute_sends_every_position_everywhere() -> None:
    keys = keys_of(4000).repeat_interleave(10)
    counts = torch.full_like(keys, 10)
    positions = torch.arange(10).repeat(4000)
    where = torch.zeros(10, 10).index_put_(
        (positions, permute(positions, counts, keys)), torch.tensor(1.0), accumulate=True
    )
    assert (where / 400 - 1).abs().max() < 0.25


def test_permute_reaches_far_without_a_table() -> None:
    count = 10**12
    positions = torch.tensor([0, 1, count - 1])
    out = permute(positions, torch.full_like(positions, count), torch.zeros_like(positions))
    assert ((out >= 0) & (out < count)).all()
    assert len(out.unique()) == 3


def test_bank_index_visits_each_row_of_a_class_once_a_round() -> None:
    counts = torch.tensor([4, 7, 1])
    starts = [0, 4, 11]
    rounds = []
    for label, start in enumerate(starts):
        size = int(counts[label])
        for turn in range(3):
            serials = torch.arange(size) + turn * size
            rows = bank_index(torch.full((size,), label), serials, counts, seed=9)
            assert rows.sort().values.tolist() == list(range(start, start + size))
            rounds.append(tuple(rows.tolist()))
    assert len({r for r in rounds if len(r) == 7}) == 3


def test_seeds_labels_and_serials_all_matter() -> None:
    labels, serials = torch.tensor([0, 1, 0, 1]), torch.tensor([0, 0, 1, 1])
    assert len(hash_keys(0, labels, serials).unique()) == 4
    assert not (hash_keys(0, labels, serials) == hash_keys(1, labels, serials)).any()
    assert not (hash_keys(0, labels, serials) == hash_keys(-1, labels, serials)).any()
    assert hash_keys(1 << 70, labels).shape == (4,)


def test_draws_are_the_same_on_the_device(device: torch.device) -> None:
    keys = keys_of(100)
    counts = torch.full((100,), 100)
    assert torch.equal(uniform(keys.to(device), 5).cpu(), uniform(keys, 5))
    moved = permute(torch.arange(100).to(device), counts.to(device), keys.to(device))
    assert torch.equal(moved.cpu(), permute(torch.arange(100), counts, keys))


def test_hash_is_splitmix64() -> None:
    mask = (1 << 64) - 1

    def mix(x: int) -> int:
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & mask
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB & mask
        return x ^ (x >> 31)

    assert mix(0x9E3779B97F4A7C15) == 0xE220A8397B1DCDAF  # the published generator's first number from state 0
    for seed, a, b in [(0, 0, 0), (7, 3, 1 << 40), (-1, 9, 2)]:
        key = (seed * 0x9E3779B97F4A7C15 + 1) & mask
        for coordinate in (a, b):
            key = mix(((key ^ coordinate) + 0x9E3779B97F4A7C15) & mask)
        found = int(hash_keys(seed, torch.tensor([a]), torch.tensor([b])))
        assert found & mask == key


@pytest.mark.parametrize("seed", [3, -1, 2**63])
def test_a_seed_may_be_of_numpy(seed: int) -> None:
    ours = np.uint64(seed) if seed >= 2**63 else np.int64(seed)
    assert torch.equal(hash_keys(ours, torch.arange(4)), hash_keys(seed, torch.arange(4)))
