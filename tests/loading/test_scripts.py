"""What scripts do to a dataset or a loader that none of ours do: lengths, copies and words of their own."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from dim_data import DistilledDataset, DistilledLoader, Generator


def to_array(image: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(image))


class ReadsData(DistilledDataset):
    """As of torchvision's own sets, copied out of it."""

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return to_array(self.data[index]), self.targets[index]


@pytest.mark.parametrize("workers", [0, 2])
def test_who_reads_data_item_by_item_is_told_that_it_stays(tiny_codes: Generator, workers: int) -> None:
    dataset = ReadsData(tiny_codes, ipc=4)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        seen = [torch.cat([images for images, _ in DataLoader(dataset, 5, num_workers=workers)]) for _ in range(2)]
    assert torch.equal(*seen)
    if workers == 0:  # those of others are said in their processes
        assert ["data was read again and again, and no picture drawn" in str(warning.message) for warning in said] == [
            True
        ]
    dataset.set_epoch(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        later = torch.cat([images for images, _ in DataLoader(dataset, 5, num_workers=workers)])
    assert not torch.equal(later, seen[0])


class Chosen(DistilledDataset):
    """Some of the set, in an order of its own."""

    def __init__(self, source: Generator, chosen: list[int]) -> None:
        self.chosen = chosen
        super().__init__(source, ipc=10, transform=to_array)

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return super().__getitem__(self.chosen[index])


class Late(DistilledDataset):
    """Its length is known only after it is built, and is none of the set's."""

    def __init__(self, source: Generator) -> None:
        super().__init__(source, ipc=4, transform=to_array)
        self.many = 50

    def __len__(self) -> int:
        return self.many

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return super().__getitem__(index % self._count)


def test_a_length_of_ones_own_changes_no_item(tiny_codes: Generator) -> None:
    dataset, whole = Chosen(tiny_codes, [1, 2, 29, 3]), DistilledDataset(tiny_codes, ipc=10, transform=to_array)
    for one in (dataset, whole):
        one.set_epoch(0)
    assert [label for _, label in dataset] == [1, 2, 2, 0]
    assert torch.equal(torch.stack([image for image, _ in dataset]), torch.stack([whole[i][0] for i in dataset.chosen]))
    assert dataset.targets == whole.targets
    assert len(dataset.data) == 30
    dataset.targets[29] = 7
    assert dataset[2][1] == 7
    assert len([label for _, labels in DataLoader(Late(tiny_codes), 5) for label in labels]) == 50


def test_words_that_subclasses_use_are_theirs_or_refused(tiny_codes: Generator) -> None:
    dataset = DistilledDataset(tiny_codes, ipc=4)
    wanted = dataset.data.copy()
    dataset.device = "cuda"
    assert np.array_equal(dataset.data, wanted)
    with pytest.raises(TypeError, match="seed must be an int, got None"):
        dataset.seed = None
    with pytest.raises(AttributeError, match=r"epoch says where the draws stand: set_epoch\(\) chooses one"):
        dataset.epoch = 0
    dataset.seed = 5
    assert not np.array_equal(dataset.data, wanted)


def test_classes_can_be_edited_and_assigned(tiny_codes: Generator) -> None:
    dataset, loader = DistilledDataset(tiny_codes, ipc=4), DistilledLoader(tiny_codes, ipc=4)
    assert dataset.class_to_idx == {name: label for label, name in enumerate(tiny_codes.spec.classes)}
    dataset.classes[0] = "plane"
    dataset.class_to_idx["plane"] = 0
    assert (dataset.classes[0], dataset.class_to_idx["plane"]) == ("plane", 0)
    dataset.classes, dataset.class_to_idx = ["one", "two"], {"one": 0, "two": 1}
    assert copy.deepcopy(dataset).classes == ["one", "two"]
    assert loader.dataset.classes == list(tiny_codes.spec.classes)


def test_a_shallow_copy_draws_for_itself(tiny_codes: Generator) -> None:
    train = DistilledDataset(tiny_codes, ipc=4, transform=to_array)
    other = copy.copy(train)
    other.set_epoch(0)
    first, second = (torch.cat([images for images, _ in DataLoader(train, 4)]) for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(first, torch.cat([images for images, _ in DataLoader(other, 4)]))
    other.targets[0] = 7
    assert train[0][1] == 7  # as of torchvision's sets


@pytest.mark.parametrize("name", ["data", "targets", "transform", "target_transform"])
def test_what_a_loaders_batches_would_not_follow_is_refused(tiny_codes: Generator, name: str) -> None:
    loader = DistilledLoader(tiny_codes, batch_size=4, ipc=4)
    with pytest.raises(
        AttributeError, match=rf"a loader's batches do not follow dataset\.{name}: assign loader\.trans"
    ):
        setattr(loader.dataset, name, [0])
    with pytest.raises(TypeError, match=r"a loader's batches do not follow dataset\.targets"):
        loader.dataset.targets[0] = 1


@pytest.mark.parametrize("name", ["collate_fn", "target_transform"])
def test_what_a_loader_would_not_call_is_refused(tiny_codes: Generator, name: str) -> None:
    loader = DistilledLoader(tiny_codes, batch_size=4, ipc=4)
    with pytest.raises(ValueError, match=rf"a loader paints whole batches, which no {name} sees: map its images by"):
        setattr(loader, name, list)


def test_an_empty_batch_is_empty_with_soft_labels_too(tiny_codes: Generator) -> None:
    bank = tiny_codes.bank
    soft = tiny_codes.store(bank.unpack(bank.codes), bank.labels, torch.eye(3)[bank.labels])
    assert DistilledDataset(soft, ipc=4, soft_labels=True).read([]) == []
