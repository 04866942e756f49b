"""Some of what there is of each class: how many, and which."""

from __future__ import annotations

import pytest
import torch

from dim_data import Generator
from dim_data.generator import class_shares, drawn_rows


@pytest.mark.parametrize(
    ("counts", "count", "shares"),
    [
        ([10, 10, 10], 9, [3, 3, 3]),
        ([10, 10, 10], 11, [3, 3, 3]),
        ([49, 49, 2], 30, [14, 14, 1]),
        ([1000, *[2] * 20], 100, [80, *[1] * 20]),
        ([1000, *[2] * 20], 21, [1] * 21),
        ([50, 40, 1, 1, 1, 1], 10, [3, 3, 1, 1, 1, 1]),
        ([3, 2, 1], 6, [3, 2, 1]),
    ],
)
def test_each_class_has_its_share_and_at_least_one(counts: list[int], count: int, shares: list[int]) -> None:
    assert class_shares(torch.tensor(counts), count).tolist() == shares


def test_rows_are_drawn_class_by_class_and_by_the_seed(tiny_codes: Generator) -> None:
    shares = torch.tensor([3, 0, 40])
    rows = drawn_rows(tiny_codes, shares, 7)
    assert len(rows.unique()) == 43
    assert torch.equal(tiny_codes.bank.labels[rows], torch.repeat_interleave(shares))
    assert torch.equal(drawn_rows(tiny_codes, shares, 7), rows)
    assert not torch.equal(drawn_rows(tiny_codes, shares, 8), rows)
