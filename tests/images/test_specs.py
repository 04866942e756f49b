from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import torch

from conftest import make_spec
from dim_data.images.specs import KNOWN_SPECS, SIZE_RANGE, ImageSpec


def test_the_known_sets_are_those_of_the_paper() -> None:
    shapes = {name: (spec.channels, spec.size, spec.num_classes, spec.mirror) for name, spec in KNOWN_SPECS.items()}
    assert shapes == {
        "cifar10": (3, 32, 10, True),
        "svhn": (3, 32, 10, False),
        "mnist": (1, 28, 10, False),
        "fashion_mnist": (1, 28, 10, True),
    }
    assert all(spec.name == name for name, spec in KNOWN_SPECS.items())


def test_class_names_are_torchvisions() -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    assert KNOWN_SPECS["fashion_mnist"].classes == tuple(datasets.FashionMNIST.classes)
    assert KNOWN_SPECS["cifar10"].classes[:3] == ("airplane", "automobile", "bird")
    assert KNOWN_SPECS["mnist"].classes == tuple("0123456789")


@pytest.mark.parametrize("name", sorted(KNOWN_SPECS))
def test_json_round_trip(name: str) -> None:
    spec = KNOWN_SPECS[name]
    assert ImageSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_normalize_works_per_channel_and_is_inverted() -> None:
    spec = dataclasses.replace(make_spec(), mean=(0.1, 0.5, 0.9), std=(0.1, 0.2, 0.4))
    images = torch.rand(4, 3, 32, 32)
    normalized = spec.normalize(images)
    for channel in range(3):
        expected = (images[:, channel] - spec.mean[channel]) / spec.std[channel]
        torch.testing.assert_close(normalized[:, channel], expected)
    torch.testing.assert_close(spec.denormalize(normalized), images)
    assert spec.normalize(images.bfloat16()).dtype == torch.bfloat16
    assert torch.equal(spec.normalize(images[0]), normalized[0]), "one image"


def test_whole_numbers_are_normalised_as_the_floats_they_stand_for() -> None:
    spec = KNOWN_SPECS["cifar10"]
    pixels = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8)
    assert torch.equal(spec.normalize(pixels), spec.normalize(pixels.float() / 255))
    for images in (pixels.int(), pixels.bool()):
        with pytest.raises(TypeError, match="images must be floats in"):
            spec.normalize(images)
    with pytest.raises(TypeError, match="images must be floats in"):
        spec.denormalize(pixels)


def test_a_spec_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_spec().size = 64  # type: ignore[misc]


@pytest.mark.parametrize("size", [*SIZE_RANGE, 64])
def test_sizes_in_range_are_accepted(size: int) -> None:
    assert make_spec(size=size).size == size


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"name": ""}, ValueError, "ImageSpec.name must be a string of 1 to 200 characters, got ''"),
        ({"name": "x" * 201}, ValueError, "ImageSpec.name must be a string of 1 to 200 characters"),
        ({"name": 3}, ValueError, "ImageSpec.name must be a string of 1 to 200 characters, got 3"),
        ({"channels": 2}, ValueError, r"ImageSpec.channels must be 1 \(grey\) or 3 \(RGB\), got 2"),
        ({"channels": "3"}, TypeError, "ImageSpec.channels must be an int, got '3'"),
        ({"channels": True}, TypeError, "ImageSpec.channels must be an int, got True"),
        ({"size": 27}, ValueError, "ImageSpec.size must be 28 to 128 pixels, got 27"),
        ({"size": 129}, ValueError, "ImageSpec.size must be 28 to 128 pixels, got 129"),
        ({"size": 32.0}, TypeError, "ImageSpec.size must be an int, got 32.0"),
        ({"classes": ["a", "b"]}, TypeError, "ImageSpec.classes must be a tuple of strings"),
        ({"classes": ("a", 1)}, TypeError, "ImageSpec.classes must be a tuple of strings"),
        ({"classes": ("a",)}, ValueError, "ImageSpec.classes must name 2 to 10000 classes, got 1"),
        ({"classes": ("a",) * 10_001}, ValueError, "ImageSpec.classes must name 2 to 10000 classes, got 10001"),
        ({"mean": (0.5,)}, ValueError, r"ImageSpec.mean must hold 3 numbers, got \(0.5,\)"),
        ({"mean": [0.5] * 3}, ValueError, "ImageSpec.mean must hold 3 numbers"),
        ({"mean": (0.5, 0.5, 125.3)}, ValueError, r"ImageSpec.mean must lie in \[0, 1\], got"),
        ({"mean": (0.5, 0.5, float("nan"))}, ValueError, r"ImageSpec.mean must lie in \[0, 1\], got"),
        ({"std": (0.2, 0.2, "0.2")}, ValueError, r"ImageSpec.std must lie in \[0, 1\], got"),
        ({"std": (0.2, 0.2, -0.2)}, ValueError, r"ImageSpec.std must lie in \[0, 1\], got"),
        ({"std": (0.2, 0.2, 0)}, ValueError, r"ImageSpec.std must be positive, got \(0.2, 0.2, 0\)"),
        ({"mirror": 1}, TypeError, "ImageSpec.mirror must be a bool, got 1"),
    ],
)
def test_bad_fields_raise(change: dict[str, Any], error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        dataclasses.replace(make_spec(), **change)


@pytest.mark.parametrize(
    "values", [{}, 3, ["name"], {**make_spec().to_dict(), "extra": 1}, {"name": "tiny", "channels": 3}]
)
def test_missing_and_unknown_keys_raise(values: Any) -> None:
    with pytest.raises(ValueError, match=r"an image spec has the keys \['channels', 'classes', 'mean', .*, got"):
        ImageSpec.from_dict(values)
