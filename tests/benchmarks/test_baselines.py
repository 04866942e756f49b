"""Real images in a generator's place."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from accuracy.baselines import as_sheet, from_sheet, stored_images, with_soft_labels
from dim_data import Generator, GeneratorConfig
from dim_data.images.real import LabelledImages
from dim_data.images.specs import KNOWN_SPECS


def test_real_images_take_the_soft_labels_of_a_bank() -> None:
    spec, labels = KNOWN_SPECS["cifar10"], torch.arange(40) * 7 % 10
    data = LabelledImages(torch.zeros(40, 3, 32, 32, dtype=torch.uint8), labels, spec)
    options = {"width": 8, "top_width": 4, "blocks": 1}
    fresh = Generator(GeneratorConfig(spec, "compact", "codes", options, codes=10))
    given = torch.nn.functional.one_hot((labels + 1) % 10, 10) * 0.75 + 0.025
    latents = torch.zeros(40, *fresh.decoder.latent_shape)
    taught = with_soft_labels(data, fresh.store(latents, labels, given))
    torch.testing.assert_close(taught.soft, given, atol=0.02, rtol=0)
    for other in (fresh, fresh.store(latents, labels), fresh.store(latents[:30], labels[:30], given[:30])):
        with pytest.raises(ValueError, match="wants a --source that stores a soft label for every training image"):
            with_soft_labels(data, other)


def test_stored_images_fit_their_budget_and_look_alike() -> None:
    ramp = torch.arange(32).view(1, 1, 1, 32).expand(40, 3, 32, 32) * 4 + torch.arange(40).view(-1, 1, 1, 1)
    data = LabelledImages(ramp.to(torch.uint8), torch.arange(40) % 10, KNOWN_SPECS["cifar10"])
    images, size = stored_images(data, 100_000, quality=95)
    assert len(images) == 40
    assert size <= 100_000
    order = torch.cat([(data.labels == label).nonzero()[:, 0] for label in range(10)])
    assert set(images.labels.tolist()) == set(data.labels[order].tolist())
    nearest = (images.images[:, None].float() - data.images[None].float()).abs().mean((2, 3, 4)).min(1)
    assert nearest.values.max() < 4
    assert torch.equal(data.labels[nearest.indices], images.labels)
    few, smaller = stored_images(data, 2_000, quality=95)
    assert len(few) < 40
    assert smaller <= 2_000


def test_sheet_round_trip() -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, 28, 28, 1), np.uint8)
    assert np.array_equal(from_sheet(as_sheet(images), 7, 28), images)
