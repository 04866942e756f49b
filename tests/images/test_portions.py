"""A batch in portions is the batch: every row has the draw that it has in the whole."""

from __future__ import annotations

import pytest
import torch

from dim_data.images.augmentation import AUGMENTATIONS, augment, augment_pair
from dim_data.images.portions import WHOLE, Portion

IMAGES = torch.rand(6, 3, 28, 28, generator=torch.Generator().manual_seed(1))


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("count", [1, 2, 3, 6])
@pytest.mark.parametrize("names", [*((name,) for name in AUGMENTATIONS), tuple(AUGMENTATIONS)])
def test_portions_are_augmented_as_the_whole_is(names: tuple[str, ...], count: int) -> None:
    whole, found, ends = rng(), [], set()
    wanted = augment(IMAGES, names, whole)
    for place in range(count):
        portion, own = Portion(place, count), rng()
        found.append(augment(portion.of(IMAGES), names, own, portion))
        ends.add(torch.rand(1, generator=own).item())
    assert torch.equal(torch.cat(found), wanted)
    assert ends == {torch.rand(1, generator=whole).item()}


def test_pairs_in_portions_share_their_draw() -> None:
    wanted = augment_pair(IMAGES, 1 - IMAGES, ("flip", "crop"), rng())
    portion = Portion(1, 2)
    found = augment_pair(portion.of(IMAGES), portion.of(1 - IMAGES), ("flip", "crop"), rng(), portion)
    assert all(torch.equal(a, portion.of(b)) for a, b in zip(found, wanted, strict=True))


def test_portions_follow_one_another_along_any_dimension() -> None:
    drawn = torch.arange(24).view(2, 6, 2)
    assert torch.equal(torch.cat([Portion(place, 3).of(drawn, 1) for place in range(3)], 1), drawn)
    assert Portion(2, 3).whole(2) == 6
    assert WHOLE.of(drawn) is drawn
