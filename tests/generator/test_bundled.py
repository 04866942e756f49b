"""The bundled generators paint what they painted before the library was laid out anew.

``bundled.json`` was made by the code of then. Pictures are painted in float64 here, which rounds to the same bytes on
every processor; noise passes through logarithms and cosines, so its numbers are compared to four digits.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dim_data import Generator, bundled_names

THEN = json.loads(Path(__file__).with_name("bundled.json").read_text(encoding="utf-8"))


def digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()


def test_every_bundled_generator_of_then_is_there() -> None:
    assert set(THEN) <= set(bundled_names())


@pytest.mark.parametrize("name", THEN)
def test_a_bundled_generator_paints_what_it_painted(name: str) -> None:
    generator = Generator.from_pretrained(name)
    classes = generator.spec.num_classes
    labels, serials = torch.arange(2 * classes) % classes, torch.arange(2 * classes) // classes * 977
    latents = generator.latents(labels, serials, seed=3)
    with torch.no_grad():
        painted = generator.double()(latents.double(), labels)
    pictures = (painted.clamp(0, 1) * 255).round().to(torch.uint8)
    then = THEN[name]
    if generator.source.finite:
        assert (digest(latents), digest(pictures)) == (then["latents"], then["pictures"])
    else:
        means = latents.flatten(1).double().mean(1), pictures.flatten(1).double().mean(1)
        torch.testing.assert_close(means[0], torch.tensor(then["latents"]).double(), atol=2e-4, rtol=0)
        torch.testing.assert_close(means[1], torch.tensor(then["pictures"]).double(), atol=0.05, rtol=0)
