"""The bundled generators paint what they painted when the references were made.

They were made by ``python tests/generator/test_bundled.py > tests/generator/bundled.json`` before a
source of latents was a class of its own. A wanted change of pictures is a new bundled file: only then make them again.

float32 convolutions round differently on other processors, so the decoders run in float64 here, where what remains of
that does not reach a grey level. Codes are exact everywhere. A learned prior decides by float32 sums, and where two
numbers of a code are nearly as likely, another processor may write the other: a code or two of twenty may differ.
"""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dim_data import Generator, bundled_names
from dim_data.networks import compute

CODES = ("cifar10", "cifar10_small", "eurosat", "fashion_mnist", "mnist", "svhn")
PRIORS = ("cifar10_noise", "fashion_mnist_noise", "mnist_noise", "svhn_noise")
REFERENCES = Path(__file__).with_name("bundled.json")
LABELS, SERIALS = torch.arange(20) % 10, torch.arange(20) // 10 * 977


def digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()


def seen(name: str) -> dict[str, Any]:
    """What a bundled generator makes of twenty coordinates, as JSON."""
    generator = Generator.from_pretrained(name)
    latents = generator.latents(LABELS, SERIALS, 3)
    if name in PRIORS:
        soft = {"soft": generator.soft_labels(LABELS, SERIALS, 3).tolist()} if generator.config.soft_labels else {}
        return {"latents": [digest(one) for one in latents], **soft}
    exact = copy.deepcopy(generator).double()
    with torch.no_grad():
        images = exact(latents.double(), LABELS).clamp(0, 1)
    pictures = (images * 255).round().to(torch.uint8)
    found = {"latents": digest(latents), "pictures": digest(pictures)}
    return found | ({"soft": digest(generator.soft_labels(LABELS, SERIALS, 3))} if generator.config.soft_labels else {})


@pytest.mark.parametrize("name", CODES)
def test_generators_of_codes_paint_what_they_did(name: str) -> None:
    assert seen(name) == json.loads(REFERENCES.read_text())[name]


@pytest.mark.parametrize("name", PRIORS)
def test_learned_priors_write_the_codes_that_they_did(name: str, float32: None) -> None:
    found, wanted = seen(name), json.loads(REFERENCES.read_text())[name]
    same = [a == b for a, b in zip(found["latents"], wanted["latents"], strict=True)]
    assert sum(same) >= 18
    assert len(set(found["latents"])) == 20
    assert ("soft" in found) == ("soft" in wanted)
    if "soft" in found:
        soft = (torch.tensor(said["soft"])[same] for said in (found, wanted))
        torch.testing.assert_close(*soft, atol=1e-2, rtol=0)


def test_every_bundled_generator_is_compared() -> None:
    assert sorted((*CODES, *PRIORS)) == bundled_names()


if __name__ == "__main__":
    compute._cpu_has_bfloat16 = lambda: False
    names = (*CODES, *PRIORS)
    made = {name: json.loads(json.dumps(seen(name)), parse_float=lambda x: round(float(x), 5)) for name in names}
    print("{\n" + ",\n".join(f'"{name}": {json.dumps(found)}' for name, found in made.items()) + "\n}")
