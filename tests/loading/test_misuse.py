"""Who draws a set as if it stayed the same is told once, and nobody else is."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset, SubsetRandomSampler, random_split
from torchvision import transforms
from torchvision.transforms import v2

from dim_data.generator.model import Generator
from dim_data.loading.dataset import DistilledDataset
from dim_data.loading.loader import DistilledLoader

SPLIT = (
    r"the generator stores 40 codes of a class, and with ipc=10 they come again\..* "
    r"use train, validation = dataset.split\(0.1\), whose parts share none"
)
OTHERS = f"from epoch 4 on, this Subset is shown pictures of the other indices too: {SPLIT}"
NEVER = f"from epoch 4 on, indices that are drawn are shown pictures of those that never are too: {SPLIT}"
TWICE = "each item is asked for twice in a row, and the second time it is another picture"


def to_bytes(image: Any) -> bytes:
    return image.tobytes()


def build(source: Generator, ipc: int = 10, **options: Any) -> DistilledDataset:
    return DistilledDataset(source, ipc=ipc, transform=to_bytes, **options)


def one_pass(dataset: Any, **options: Any) -> list[bytes]:
    return [image for batch in DataLoader(dataset, 7, collate_fn=list, **options) for image, _ in batch]


@contextmanager
def nobody_told() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@contextmanager
def told(*sentences: str) -> Iterator[None]:
    """These warnings, and no others."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        yield
    said = [str(warning.message) for warning in found]
    assert len(said) == len(sentences), said
    assert all(re.match(sentence, one) for sentence, one in zip(sentences, said, strict=True)), said


class Wrapper(Dataset[Any]):
    """Somebody's dataset around a ``Subset``, with items of its own."""

    def __init__(self, part: Any) -> None:
        self.part = part

    def __getitem__(self, index: int) -> Any:
        return self.part[index]

    def __len__(self) -> int:
        return len(self.part)


# Parts whose codes run out ---------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["as it is", "wrapped", "each pass pinned"])
def test_a_subset_is_told_once_when_codes_run_out(tiny_codes: Generator, how: str) -> None:
    dataset = build(tiny_codes)  # 40 codes of a class, 10 a pass
    parts: list[Any] = random_split(dataset, [0.9, 0.1], generator=torch.Generator().manual_seed(0))
    if how == "wrapped":
        parts = [Wrapper(part) for part in parts]

    def passes(epochs: range) -> None:
        for epoch in epochs:
            if how == "each pass pinned":
                dataset.set_epoch(epoch)
            for part in parts:
                one_pass(part)

    with nobody_told():
        passes(range(4))
    with told(OTHERS):
        passes(range(4, 7))


@pytest.mark.parametrize("workers", [0, 1])
def test_two_sets_of_which_samplers_draw_parts_are_told(tiny_codes: Generator, workers: int) -> None:
    """As in tutorials that transform training and validation images differently; in a worker, it says so itself."""
    dataset = build(tiny_codes)
    sampler = SubsetRandomSampler(range(5, 30))
    with nobody_told():
        for _ in range(4):
            one_pass(dataset, sampler=sampler, num_workers=workers)
    with told(*([NEVER] if workers == 0 else [])):
        one_pass(dataset, sampler=sampler, num_workers=workers)
        one_pass(dataset, sampler=sampler, num_workers=workers)


def test_each_of_several_copies_is_told(tiny_codes: Generator) -> None:
    dataset = build(tiny_codes)
    other = copy.copy(dataset)
    with told(NEVER, NEVER):
        for _ in range(6):
            one_pass(dataset, sampler=range(20))
            one_pass(other, sampler=range(20, 30))


CASES = ["whole", "all of it", "by class", "noise", "fixed", "pinned", "parted", "assigned", "resumed"]


@pytest.mark.parametrize("case", CASES)
def test_nobody_else_is_told_of_parts(tiny_codes: Generator, tiny_noise: Generator, case: str) -> None:
    dataset = build(tiny_noise if case == "noise" else tiny_codes, ipc=39, fixed=case == "fixed")
    if case == "pinned":
        dataset.set_epoch(1)
    elif case == "parted":
        dataset = dataset.split(0.5)[0]
    elif case == "assigned":
        dataset.data = dataset.data.copy()
    elif case == "resumed":  # in the middle of the pass in which codes run out
        one_pass(dataset)
        one_pass(dataset, sampler=range(14))
        state, dataset = dataset.state_dict(), build(tiny_codes, ipc=39)
        dataset.load_state_dict(state)
        with nobody_told():
            one_pass(dataset, sampler=range(14, 117))
        assert dataset.epoch == 1
    parts = {"all of it": range(len(dataset)), "by class": [i for i in range(len(dataset)) if i % 3 != 1]}
    whole = case in ("whole", "parted", "resumed")
    given = dataset if whole else Subset(dataset, parts.get(case, range(9)))
    with nobody_told():
        for _ in range(3):
            one_pass(given)


# Items asked for twice -------------------------------------------------------------------------------


class Twice(Dataset[Any]):
    """Two views of each item, as contrastive learning takes them."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index][0] == self.dataset[index][0], 0

    def __len__(self) -> int:
        return len(self.dataset)


def test_who_asks_for_each_item_twice_is_told_once(tiny_codes: Generator) -> None:
    with told(TWICE):
        assert not any(one_pass(Twice(build(tiny_codes)), shuffle=True))


def test_drawing_with_replacement_is_no_part(tiny_codes: Generator) -> None:
    dataset = build(tiny_codes)
    rng = torch.Generator().manual_seed(0)
    with nobody_told():
        for _ in range(20):
            for index in torch.randint(30, (5,), generator=rng):
                dataset[int(index)]


@pytest.mark.parametrize("how", ["fixed", "pinned", "assigned"])
def test_where_both_are_one_picture_nobody_is_told(tiny_codes: Generator, how: str) -> None:
    dataset = build(tiny_codes, fixed=how == "fixed")
    if how == "pinned":
        dataset.set_epoch(2)
    elif how == "assigned":
        dataset.data = dataset.data.copy()
    with nobody_told():
        assert all(one_pass(Twice(dataset)))


@pytest.mark.parametrize("order", [[0] * 9, [4, 4, 5, 6, 6, 7, 8, 8], [1, 2, 1, 2, 1, 2], [3, 3, 4, 4]], ids=str)
def test_looking_at_an_item_again_is_no_pair(tiny_noise: Generator, order: list[int]) -> None:
    dataset = build(tiny_noise)
    with nobody_told():
        for index in order:
            dataset[index]


# Transforms of a batch -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("transform", "name"),
    [
        (transforms.RandomCrop(28, padding=4), "RandomCrop"),
        (
            transforms.Compose([transforms.Normalize(0.5, 0.5), transforms.RandomHorizontalFlip()]),
            "RandomHorizontalFlip",
        ),
        (nn.Sequential(transforms.ColorJitter(0.5)), "ColorJitter"),
        (v2.Compose([v2.AutoAugment(), v2.ToDtype(torch.float32)]), "AutoAugment"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_transform_that_draws_once_for_a_batch_is_told(tiny_noise: Generator, transform: Any, name: str) -> None:
    sentence = f"{name} draws once for all pictures that it is called with"
    with pytest.warns(UserWarning, match=sentence):
        DistilledLoader(tiny_noise, 5, device="cpu", transform=transform)
    loader = DistilledLoader(tiny_noise, 5, device="cpu")
    with pytest.warns(UserWarning, match=sentence):
        loader.transform = transform


class Owner:
    """Somebody's callable with an attribute of that name."""

    transforms = transforms

    def __call__(self, images: Any) -> Any:
        return images


@pytest.mark.parametrize(
    "transform", [None, Owner(), transforms.Normalize(0.5, 0.5), v2.Compose([v2.Resize(32)]), nn.Flatten()]
)
def test_other_transforms_are_taken_without_a_word(tiny_noise: Generator, transform: Any) -> None:
    with nobody_told():
        loader = DistilledLoader(tiny_noise, 5, device="cpu")
        loader.transform = transform
        loader.transform = loader.spec.normalize
