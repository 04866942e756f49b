"""How near pictures come to training images."""

from __future__ import annotations

import warnings

import pytest
import torch

from conftest import make_data, make_spec
from dim_data.generator.model import Generator
from dim_data.images.labelled import LabelledImages
from dim_data.networks.classifiers import ConvNet
from dim_data.protocol.likeness import measure_likeness, nearest_distances


def random_images(count: int, seed: int) -> LabelledImages:
    images = torch.randint(256, (count, 3, 32, 32), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return LabelledImages(images, torch.arange(count) % 3, make_spec())


def test_distances_are_those_of_the_nearest() -> None:
    rng = torch.Generator().manual_seed(0)
    some = torch.randint(256, (1100, 1, 2, 2), generator=rng, dtype=torch.uint8)
    others = torch.randint(256, (700, 1, 2, 2), generator=rng, dtype=torch.uint8)
    others[650] = some[3]
    found = nearest_distances(lambda images: images.float().flatten(1), some.float().flatten(1), others)
    wanted = torch.cdist(some.double().flatten(1), others.double().flatten(1)).amin(1) / 2
    torch.testing.assert_close(found, wanted.float())
    assert found[3] == 0


def test_copies_are_found_out(tiny_codes: Generator) -> None:
    rows = torch.arange(len(tiny_codes.bank))
    copied = LabelledImages(tiny_codes.decode(rows), tiny_codes.bank.labels, tiny_codes.spec)
    half = ConvNet(tiny_codes.spec, width=8).half()
    found = measure_likeness(tiny_codes, copied, random_images(300, 1), half, count=60)
    assert (found.count, found.pixels.pictures, found.pixels.close) == (60, 0, 1)
    assert found.pixels.held_out > 50
    assert found.features is not None
    assert (found.features.pictures, found.features.close) == (0, 1)


def test_nothing_is_copied_where_pictures_are_as_far_as_held_out_images(tiny_codes: Generator) -> None:
    rows = torch.arange(len(tiny_codes.bank))
    pictures = LabelledImages(tiny_codes.decode(rows), tiny_codes.bank.labels, tiny_codes.spec)
    odd, even = (pictures.subset(rows[start::2]) for start in (1, 0))
    # Half of the pictures are among the training images; the held-out ones, which are the other half, are not.
    found = measure_likeness(tiny_codes, even, odd, count=120)
    assert found.count == 120
    assert found.pixels.close == pytest.approx(0.5, abs=0.02)
    assert found.features is None


@pytest.mark.parametrize("twins", [1, 4, 150])
def test_held_out_images_that_were_trained_on_do_not_count(twins: int, tiny_codes: Generator) -> None:
    copied = LabelledImages(tiny_codes.decode(torch.arange(120)), tiny_codes.bank.labels, tiny_codes.spec)
    classifier, other = ConvNet(tiny_codes.spec, width=8), random_images(200, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wanted = measure_likeness(tiny_codes, copied, other, classifier, count=60)
    images = torch.cat([other.images, copied.images[torch.arange(twins) % 120]])
    held_out = LabelledImages(images, torch.arange(len(images)) % 3, tiny_codes.spec)
    with pytest.warns(UserWarning, match=f"left out {twins} of {200 + twins} held-out images: they are in train"):
        found = measure_likeness(tiny_codes, copied, held_out, classifier, count=60)
    assert wanted.features is not None
    assert found.features is not None
    assert found.pixels == wanted.pixels
    assert found.pixels.close == found.features.close == 1
    assert found.features.held_out == pytest.approx(wanted.features.held_out, rel=1e-3)


def test_what_cannot_be_compared_is_refused(tiny_codes: Generator) -> None:
    images = random_images(6, 0)
    with pytest.raises(ValueError, match="likeness needs pictures and images, got 0, 6 and 6"):
        measure_likeness(tiny_codes, images, images, count=0)
    with pytest.raises(ValueError, match=r"must be \(3, 32, 32\), as the generator's are, got \(1, 28, 28\)"):
        measure_likeness(tiny_codes, make_data(), images)
    with pytest.raises(ValueError, match="all 4 held-out images are in train: compare with images that are not"):
        measure_likeness(tiny_codes, images, images.subset(torch.arange(4)))
