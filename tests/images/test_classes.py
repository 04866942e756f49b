"""Labels by the names of classes."""

from __future__ import annotations

import unicodedata
import warnings
from dataclasses import replace

import pytest
import torch

from conftest import make_data, make_spec
from dim_data.images import KNOWN_SPECS, ImageSpec
from dim_data.images.classes import match_classes, name_numbers, say_assumed


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
        (["1", "3"], (0, 1), ["001", "002", "003"], [0, 2]),
        (["1", "2", "3"], (0, 1, 2), ["01", "02", "03"], [0, 1, 2]),
        (["01", "02"], (0, 1), ["01", "1", "2", "02"], [0, 3]),
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


def test_soft_labels_of_classes_without_an_image_keep_their_class() -> None:
    images = make_data(classes=3)
    few = replace(images.subset(images.labels < 2), soft=torch.tensor([[0.5, 0.3, 0.2]]).repeat(40, 1))
    assert torch.equal(few.in_terms_of(spec("class2", "class1", "class0")).soft[0], torch.tensor([0.2, 0.3, 0.5]))
    with pytest.raises(ValueError, match="tiny has no class 'class2'"):
        few.in_terms_of(make_spec(1, 28, 2))


def test_known_sets_have_names_that_folders_can_have() -> None:
    for known in KNOWN_SPECS.values():
        assert match_classes(sorted(known.classes), range(10), known) == [
            known.classes.index(name) for name in sorted(known.classes)
        ]


@pytest.mark.parametrize(
    ("present", "wanted", "names"),
    [
        (range(12), sorted(map(str, range(12))), [str(i) for i in range(12)]),
        ((1, 11), sorted(map(str, range(12))), [*"0123456789", "10", "11"]),
        ((1, 2, 3), "123", ["", "1", "2", "3"]),
        ((0, 2), "210", "012"),
        ((0, 1), ["00", "01"], ["00", "01"]),
        ((0, 1, 2), "123", "123"),  # in order: none is a 0
        ((0, 1), ["1", "01"], ["1", "01"]),  # in order: 1 would be both
        ((0, 1), "a1", "a1"),
        ((0, 10**9), ["0", str(10**9)], ["0", str(10**9)]),
    ],
)
def test_labels_are_the_numbers_that_classes_have_for_names(
    present: list[int], wanted: list[str], names: list[str]
) -> None:
    assert name_numbers(list(present), spec(*wanted)) == tuple(names)


@pytest.mark.parametrize(
    ("names", "wanted", "said"),
    [
        ("012", ("ant", "bee", "cat"), "took the data's '0' for 'ant', '1' for 'bee', '2' for 'cat'; if"),
        (("ant", "bee", "cat"), "012", "took the data's 'ant' for '0', 'bee' for '1', 'cat' for '2'; if"),
        ("012", "123", "took the data's '0' for '1', '1' for '2', '2' for '3'; if"),
        ([str(i) for i in range(12)], "abcdefghijkl", "'8' for 'i', '9' for 'j', ...; if"),
    ],
)
def test_what_is_paired_by_no_name_is_said_once(names: list[str], wanted: list[str], said: str) -> None:
    labels = range(len(names))
    with pytest.warns(UserWarning, match=f"^either the data or tiny has but numbers for classes.*{said}") as heard:
        say_assumed(names, labels, labels, spec(*wanted))
    assert len(heard) == 1


@pytest.mark.parametrize(
    ("names", "present", "wanted"),
    [
        ("abc", (0, 1, 2), "abc"),
        ("ax", (0,), "abc"),  # no image is an x
        (["0 - zero", "1 - one"], (0, 1), "01"),
        ("01", (0, 1), ["00", "01"]),
        ([unicodedata.normalize("NFD", "é"), "a"], (0, 1), "éa"),
    ],
)
def test_classes_that_are_called_the_same_are_nothing_to_speak_of(
    names: list[str], present: list[int], wanted: list[str]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        say_assumed(names, present, range(len(names)), spec(*wanted))


def test_images_in_memory_say_what_they_were_taken_for() -> None:
    named = replace(make_data(), spec=spec("ant", "bee", "cat"))
    with pytest.warns(UserWarning, match="took the data's 'ant' for '0', 'bee' for '1', 'cat' for '2'"):
        numbered = named.in_terms_of(spec("0", "1", "2"))
    with pytest.warns(UserWarning, match="took the data's '0' for 'ant', '1' for 'bee', '2' for 'cat'"):
        again = numbered.in_terms_of(named.spec)
    assert torch.equal(again.labels, named.labels)


def test_numbers_that_may_be_names_or_places_are_told() -> None:
    photos = spec("1", "2", "3", "4", "5")
    with pytest.warns(UserWarning, match=r"took 1 for the class '1', not '2'; give the labels as strings to be sure"):
        assert name_numbers([1, 2, 4], photos)[:3] == ("", "1", "2")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert name_numbers([0, 1, 4], photos) == photos.classes  # 0 is no class
        assert name_numbers([1, 5], photos)[1] == "1"  # 5 is no place
        assert name_numbers([0, 1], spec("0", "1", "5"))[:2] == ("0", "1")  # the same either way
        assert name_numbers([0, 2], spec("0", "2", "1")) == ("0", "1", "2")  # as folders of ten and more are sorted


def test_two_classes_of_one_name_are_not_told_apart() -> None:
    with pytest.raises(
        ValueError, match="tiny has two classes called 'crane': call them differently to tell them apart"
    ):
        match_classes(["maillot", "crane"], [0, 1], spec("crane", "crane", "maillot"))
    assert match_classes(["crane", "crane", "maillot"], [0, 1, 2], spec("crane", "crane", "maillot")) == [0, 1, 2]
    assert match_classes(["maillot"], [0], spec("crane", "crane", "maillot")) == [2]
