"""Labels by the names of classes."""

from __future__ import annotations

import unicodedata
from dataclasses import replace

import pytest
import torch

from conftest import make_data, make_spec
from dim_data.images import KNOWN_SPECS, ImageSpec
from dim_data.images.classes import match_classes


def spec(*names: str) -> ImageSpec:
    return replace(make_spec(1, 28), classes=names)


@pytest.mark.parametrize(
    ("names", "present", "wanted", "places"),
    [
        ("abc", (0, 1, 2), "abc", [0, 1, 2]),
        ("cab", (0, 1, 2), "abc", [2, 0, 1]),
        ("bc", (0, 1), "abc", [1, 2]),
        ("bcx", (0, 1), "abc", [1, 2, 0]),  # no image is an x
        (["0", "1", "10", "2"], (0, 1, 2, 3), [str(i) for i in range(11)], [0, 1, 10, 2]),
        (["2", "0"], (0, 1), "abc", [2, 0]),
        (["02", "00"], (0, 1), "abc", [2, 0]),
        ("xyz", (0, 2), "012", [0, 1, 2]),
        ([f"{i} - {name}" for i, name in enumerate("xyz")], (0, 1, 2), "012", [0, 1, 2]),
        ([unicodedata.normalize("NFD", "é"), "a"], (0, 1), ["a", "é"], [1, 0]),
        ("aba", (0, 2), "aba", [0, 1, 2]),
    ],
)
def test_names_decide(names: list[str], present: list[int], wanted: list[str], places: list[int]) -> None:
    assert match_classes(names, present, spec(*wanted)) == places


@pytest.mark.parametrize(
    ("names", "present", "wanted", "lacking"),
    [
        ("bcd", (0, 1, 2), "abc", "'d'"),
        ("xyz", (0, 1, 2), "abc", "'x', 'y', 'z'"),
        ("xy", (0, 1), "012", "'x', 'y'"),
        ("1x", (0, 1), "012", "'x'"),
        ("34", (0, 1), "abc", "'3', '4'"),
        (["A", "b"], (0, 1), "abc", "'A'"),
    ],
)
def test_names_that_are_lacking_are_told(names: list[str], present: list[int], wanted: str, lacking: str) -> None:
    with pytest.raises(
        ValueError, match=rf"tiny has no class {lacking}; its 3 classes are .*load_real\(data\), spec=spec"
    ):
        match_classes(names, present, spec(*wanted))


def test_images_in_memory_change_their_terms() -> None:
    data = replace(make_data(classes=3), soft=torch.rand(60, 3))
    wider = spec("new", "class2", "class0", "class1")
    moved = data.in_terms_of(wider)
    assert torch.equal(moved.labels, torch.tensor([2, 3, 1])[data.labels])
    assert torch.equal(moved.soft[:, [2, 3, 1]], data.soft)
    assert (moved.soft[:, 0] == 0).all()
    assert moved.spec is wider
    assert torch.equal(moved.subset(torch.arange(3)).in_terms_of(data.spec).labels, data.labels[:3])
    with pytest.raises(ValueError, match="tiny has no class 'class2'"):
        data.in_terms_of(make_spec(1, 28, 2))


def test_known_sets_have_names_that_folders_can_have() -> None:
    for known in KNOWN_SPECS.values():
        assert match_classes(sorted(known.classes), range(10), known) == [
            known.classes.index(name) for name in sorted(known.classes)
        ]
