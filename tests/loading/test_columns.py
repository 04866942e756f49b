"""``data`` and ``targets`` of a whole set: read, edited, assigned, in the form of the set that is replaced."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from conftest import TINY, make_generator
from dim_data.format import GeneratorConfig
from dim_data.generator.model import Generator
from dim_data.images import KNOWN_SPECS
from dim_data.loading.dataset import DistilledDataset

IPC = 4


def to_array(image: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(image))


def build(source: Generator, **options: Any) -> DistilledDataset:
    return DistilledDataset(source, **{"ipc": IPC, "transform": to_array, **options})


def known(name: str) -> Generator:
    spec = KNOWN_SPECS[name]
    return make_generator(GeneratorConfig(spec, "compact", "codes", TINY, codes=40))


def images(dataset: DistilledDataset) -> torch.Tensor:
    return torch.cat([batch for batch, _ in DataLoader(dataset, 5)])


def labels(dataset: DistilledDataset) -> list[int]:
    return torch.cat([batch for _, batch in DataLoader(dataset, 5)]).tolist()


@pytest.fixture
def soft(tiny_codes: Generator) -> Generator:
    bank = tiny_codes.bank
    return tiny_codes.store(bank.unpack(bank.codes), bank.labels, torch.eye(3)[bank.labels])


# Forms -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_the_mnist_family_holds_tensors(name: str) -> None:
    dataset: Any = build(known(name))
    assert (dataset.data.shape, dataset.data.dtype) == (torch.Size([40, 28, 28]), torch.uint8)
    assert (dataset.targets.shape, dataset.targets.dtype) == (torch.Size([40]), torch.int64)
    assert dataset.data[dataset.targets == 3].shape == (IPC, 28, 28)
    assert np.array_equal(dataset.targets.numpy(), np.arange(40) % 10)
    assert dataset.train_data is dataset.data
    assert dataset.train_labels is dataset.targets
    assert torch.equal(images(dataset), dataset.data)
    dataset.targets[dataset.targets == 3] = 5
    assert type(dataset[3][1]) is int
    assert labels(dataset).count(5) == 2 * IPC


def test_svhn_holds_planes_and_labels() -> None:
    dataset: Any = build(known("svhn"))
    assert (dataset.data.shape, dataset.data.dtype) == ((40, 3, 32, 32), np.uint8)
    assert dataset.labels is dataset.targets
    assert (type(dataset.labels), dataset.labels.dtype) == (np.ndarray, np.int64)
    assert np.array_equal(images(dataset).numpy(), dataset.data.transpose(0, 2, 3, 1))
    dataset.data, dataset.labels = dataset.data[::2], dataset.labels[::2] + 1
    assert images(dataset).shape == (20, 32, 32, 3)
    assert labels(dataset) == [i % 10 + 1 for i in range(0, 40, 2)]
    assert type(dataset[3][1]) is int


def test_cifar_and_own_sets_hold_an_array_and_a_list(tiny_noise: Generator) -> None:
    other = known("mnist")
    own = replace(KNOWN_SPECS["mnist"], mean=(0.2,))  # a set of one's own by the same name
    stranger = make_generator(replace(other.config, spec=own))
    for source in (known("cifar10"), tiny_noise, stranger):
        dataset: Any = build(source)
        assert type(dataset.data) is np.ndarray
        assert type(dataset.targets) is list
        for name in ("labels", "train_data", "train_labels"):
            assert not hasattr(dataset, name)
            setattr(dataset, name, [7])  # what a subclass keeps there is its own
            assert getattr(dataset, name) == [7]
        assert labels(dataset) == dataset.targets


# Assigned --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [lambda x: x, list, torch.from_numpy, lambda x: [torch.from_numpy(y) for y in x]])
def test_assigned_data_is_a_fixed_set(tiny_codes: Generator, form: Callable[[Any], Any]) -> None:
    dataset, other = build(tiny_codes), build(tiny_codes, seed=1).data[:7]
    assert len(dataset) == 12
    dataset.data = form(other)
    assert len(dataset) == 7
    dataset.targets = [2] * 7
    for epoch in (None, 5, 6):
        dataset.set_epoch(epoch)
        assert np.array_equal(images(dataset).numpy(), other)
        assert labels(dataset) == [2] * 7
        assert np.array_equal(np.asarray(dataset.data), other)
    assert torch.equal(dataset[-1][0], torch.from_numpy(other[6]))
    assert "Number of datapoints: 7" in repr(dataset)
    assert "Pictures: as assigned to data, the same in each pass" in repr(dataset)
    assert "Epoch" not in repr(dataset)


def test_what_is_assigned_is_what_is_found_there(tiny_codes: Generator) -> None:
    dataset = build(tiny_codes)
    data, targets = dataset.data[:2].copy(), np.array([2, 2])
    dataset.data, dataset.targets = data, targets
    assert dataset.data is data
    assert dataset.targets is targets
    data[0] = 9
    targets[1] = 1
    assert set(dataset[0][0].flatten().tolist()) == {9}
    assert labels(dataset) == [2, 1]


@pytest.mark.parametrize("first", ["data", "targets"])
def test_pictures_and_labels_must_be_as_many_when_items_are_asked_for(tiny_codes: Generator, first: str) -> None:
    dataset = build(tiny_codes)
    setattr(dataset, first, getattr(dataset, first)[:5])
    pictures, known = (5, 12) if first == "data" else (12, 5)
    sentence = f"{pictures} pictures and {known} labels make no items: assign both, for example dataset.data, dataset.t"
    for draw in (lambda: dataset[0], lambda: dataset.read([0, 1])):
        with pytest.raises(ValueError, match=sentence):
            draw()
    other = "targets" if first == "data" else "data"
    setattr(dataset, other, getattr(dataset, other)[:5])
    assert labels(dataset) == [0, 1, 2, 0, 1]


def test_targets_stay_those_of_the_pictures(tiny_codes: Generator) -> None:
    dataset = build(tiny_codes)
    dataset.data = dataset.data[::-1]
    assert labels(dataset) == [i % 3 for i in range(12)]


@pytest.mark.parametrize(
    ("value", "error", "sentence"),
    [
        (
            np.zeros((2, 32, 32, 3)),
            TypeError,
            r"data must hold uint8 pictures, \(N, H, W, 3\), .*, got float64 \(2, 32, 3",
        ),
        (None, TypeError, "data must hold uint8 pictures, .* got NoneType"),
        ([], TypeError, "data must hold uint8 pictures, .* got list"),
        (
            np.zeros((2, 3, 32, 32), np.uint8),
            ValueError,
            r"data must be uint8 \(N, H, W, 3\), or .* got uint8 \(2, 3, 32",
        ),
        (np.zeros(5, np.uint8), ValueError, r"data must be uint8 .* got uint8 \(5,\)"),
    ],
)
def test_what_are_no_pictures_is_refused(
    tiny_codes: Generator, value: Any, error: type[Exception], sentence: str
) -> None:
    dataset = build(tiny_codes)
    with pytest.raises(error, match=sentence):
        dataset.data = value
    assert images(dataset).shape == (12, 32, 32, 3)


@pytest.mark.parametrize("value", [None, 3, (label for label in [0, 1])])
def test_what_are_no_labels_is_refused(tiny_codes: Generator, value: Any) -> None:
    with pytest.raises(TypeError, match="targets must be a list, an array or a tensor of labels, got"):
        build(tiny_codes).targets = value


# Edited ----------------------------------------------------------------------------------------------

EDITS: dict[str, Callable[[Any], Any]] = {
    "item": lambda data: data.__setitem__((2, 5), 250),
    "view": lambda data: data[2][5].fill(250),
    "out": lambda data: np.add(data, 1, out=data),
    "order": lambda data: np.random.default_rng(0).shuffle(data),
    "tensor": lambda data: torch.from_numpy(data).add_(1),
}


@pytest.mark.parametrize("drawn", [0, 3, 12])
@pytest.mark.parametrize("how", EDITS)
def test_edited_pictures_are_a_fixed_set(tiny_codes: Generator, how: str, drawn: int) -> None:
    dataset = build(tiny_codes)
    for index in range(drawn):
        dataset[index]
    wanted = dataset.data.copy()
    EDITS[how](wanted)
    EDITS[how](dataset.data)
    for _ in range(3):
        assert np.array_equal(np.array([dataset[index][0].numpy() for index in range(12)]), wanted)
        assert np.array_equal(dataset.data, wanted)


def test_an_edited_tensor_is_a_fixed_set_too() -> None:
    dataset: Any = build(known("mnist"))
    dataset.data[4, :5] = 255
    wanted = dataset.data.clone()
    for _ in range(3):
        assert torch.equal(images(dataset), wanted)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda d: pickle.loads(pickle.dumps(d))])
@pytest.mark.parametrize("change", ["edit", "assign", "label", None])
def test_a_copy_has_what_was_changed(tiny_codes: Generator, duplicate: Any, change: str | None) -> None:
    dataset = build(tiny_codes)
    if change == "edit":
        dataset.data[3] = 7
    elif change == "assign":
        dataset.data = dataset.data[:5]
        dataset.targets = [1] * 5
    elif change == "label":
        dataset.targets[0] = 2
    else:
        _ = dataset.data
    dataset.set_epoch(4)
    other = duplicate(dataset)
    assert torch.equal(images(other), images(dataset))
    assert labels(other) == labels(dataset)


def test_a_copy_that_moves_on_lets_the_pictures_of_the_other_be_edited(tiny_codes: Generator) -> None:
    dataset = build(tiny_codes)
    data = dataset.data
    other = copy.copy(dataset)
    for _ in range(2):
        images(other)
    data[0] = 5
    assert (images(dataset)[0] == 5).all()


def test_pictures_that_are_only_looked_at_do_not_stay(tiny_codes: Generator) -> None:
    dataset, plain = build(tiny_codes), build(tiny_codes)
    for _ in range(3):
        seen = dataset.data
        assert torch.equal(images(dataset), images(plain))
    with pytest.raises(ValueError, match="read-only"):
        seen[0] = 0  # of an epoch that is over: the edit would be lost


# Soft labels -----------------------------------------------------------------------------------------


def test_soft_labels_are_of_what_was_painted(soft: Generator) -> None:
    dataset = build(soft, soft_labels=True)
    dataset.targets[2] = 0
    for draw in (lambda: dataset[2], lambda: dataset.read([1, 2])):
        with pytest.raises(ValueError, match=r"targets\[2\] was changed to 0, and soft_labels are what a teacher said"):
            draw()
    assert dataset[1][1].argmax() == 1


@pytest.mark.parametrize("change", [lambda d: d.data.fill(0), lambda d: setattr(d, "data", d.data.copy())])
def test_nobody_has_an_opinion_of_changed_pictures(soft: Generator, change: Callable[[Any], Any]) -> None:
    dataset = build(soft, soft_labels=True)
    assert dataset[1][1].argmax() == 1
    change(dataset)
    for draw in (lambda: dataset[2], lambda: dataset.read([1, 2])):
        with pytest.raises(
            ValueError, match="data was changed, and soft_labels are what a teacher said of the pictures"
        ):
            draw()


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_soft_labels_one_by_one_are_those_of_the_batch(soft: Generator, share: float) -> None:
    one, many = build(soft, soft_labels=share), build(soft, soft_labels=share)
    for _ in range(2):
        for index, (image, opinion) in enumerate(many.read(range(12))):
            mine = one[index]
            assert torch.equal(mine[0], image)
            assert torch.equal(mine[1], opinion)
            assert mine[1].dtype == torch.float32
