"""What scripts written for real images do to a dataset: subclass, wrap, relabel, subset, edit."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, random_split

from dim_data.generator.model import Generator
from dim_data.loading.dataset import DistilledDataset
from dim_data.loading.named import DistilledCIFAR10

IPC = 6
COUNT = 3 * IPC
WORKERS = [0, 2]


def to_array(image: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(image))


def build(source: Generator, kind: type[DistilledDataset] = DistilledDataset, **options: Any) -> Any:
    return kind(source, **{"ipc": IPC, "transform": to_array, **options})


def epoch(source: Generator, number: int = 0) -> torch.Tensor:
    dataset = build(source)
    dataset.set_epoch(number)
    return torch.stack([image for image, _ in dataset.read(range(COUNT))])


def joined(loader: DataLoader[Any]) -> list[torch.Tensor]:
    return [torch.cat(parts) for parts in zip(*loader, strict=True)]


# Whoever defines __getitem__ is asked ----------------------------------------------------------------


class TwoCrops(DistilledDataset):
    def __getitem__(self, index: int) -> Any:
        image, label = super().__getitem__(index)
        return image, image.flip(1), label


class Numbered(DistilledDataset):
    def __getitem__(self, index: int) -> Any:
        return (*super().__getitem__(index), index)


class Relabelling:
    def __getitem__(self, index: int) -> Any:
        image, label = super().__getitem__(index)  # type: ignore[misc]
        return image, label + 10


class Relabelled(Relabelling, DistilledDataset):
    pass


class Untouched(DistilledDataset):
    """A subclass that adds something else."""

    extra = 1


class Wrapper:
    """Forwards whatever it does not have, but adds to each item."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __getattr__(self, name: str) -> Any:
        if name == "dataset":  # not there while it is unpickled
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        image, label = self.dataset[index]
        return image, label + 10


class WrappingDataset(Wrapper, Dataset[Any]):
    """The same, as a torch ``Dataset``."""


class Proxy(Wrapper):
    """The same, forwarding all that is asked, as wrapt's ``ObjectProxy`` does."""

    def __getattribute__(self, name: str) -> Any:
        if name in ("dataset", "__class__", "__dict__", "__reduce_ex__", "__setstate__"):
            return object.__getattribute__(self, name)
        return getattr(object.__getattribute__(self, "dataset"), name)


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("shuffle", [False, True])
def test_two_crops_and_indices_come_through(tiny_codes: Generator, workers: int, shuffle: bool) -> None:
    loader = DataLoader(build(tiny_codes, TwoCrops), 5, shuffle=shuffle, num_workers=workers)
    image, mirrored, label = joined(loader)
    assert torch.equal(mirrored, image.flip(2))
    assert label.bincount().tolist() == [IPC] * 3
    loader = DataLoader(build(tiny_codes, Numbered), 5, shuffle=shuffle, num_workers=workers)
    for number in range(2):
        image, label, index = joined(loader)
        assert torch.equal(image, epoch(tiny_codes, number)[index])
        assert torch.equal(label, index % 3)


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("part", [None, Subset, random_split])
@pytest.mark.parametrize("kind", [Relabelled, Wrapper, WrappingDataset, Proxy])
def test_whoever_adds_to_items_is_asked_for_each(tiny_codes: Generator, kind: Any, part: Any, workers: int) -> None:
    dataset = build(tiny_codes, kind) if kind is Relabelled else kind(build(tiny_codes))
    if part is Subset:
        dataset = Subset(dataset, range(COUNT))
    elif part is random_split:
        dataset = random_split(dataset, [COUNT, 0])[0]
    loader = DataLoader(dataset, 5, num_workers=workers)
    for number in range(2):
        images, labels = joined(loader)
        assert labels.bincount().tolist() == [0] * 10 + [IPC] * 3
        order = range(COUNT) if part is not random_split else dataset.indices
        assert torch.equal(images, epoch(tiny_codes, number)[list(order)])


def test_a_method_put_into_the_class_later_is_asked(tiny_codes: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = build(tiny_codes)
    monkeypatch.setattr(DistilledDataset, "__getitem__", lambda self, index: (to_array(Image.new("L", (2, 2))), 77))
    assert set(joined(DataLoader(dataset, 5))[1].tolist()) == {77}


def test_a_batch_method_of_a_subclass_is_asked_for_batches(tiny_codes: Generator) -> None:
    class Batched(DistilledDataset):
        def __getitems__(self, indices: list[int]) -> Any:
            return [(*item, len(indices)) for item in super().__getitems__(indices)]

    assert joined(DataLoader(build(tiny_codes, Batched), 5))[2].tolist() == [5] * 15 + [3] * 3


@pytest.mark.parametrize("kind", [DistilledDataset, Untouched])
@pytest.mark.parametrize("workers", WORKERS)
def test_only_torch_is_offered_batches(
    tiny_codes: Generator, kind: Any, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    read = DistilledDataset.read
    monkeypatch.setattr(DistilledDataset, "read", lambda self, indices: asked.append(1) or read(self, indices))

    def batches(given: Any) -> int:
        asked.clear()
        return [*DataLoader(given, 6, num_workers=workers, collate_fn=lambda batch: len(asked))][-1]

    dataset = build(tiny_codes, kind)
    with pytest.raises(AttributeError, match=r"asked item by item here; read\(indices\) makes a batch of them"):
        _ = dataset.__getitems__
    assert not hasattr(Wrapper(dataset), "__getitems__")
    share = Subset(dataset, range(COUNT))
    for given in (dataset, share, Subset(share, range(COUNT))):
        assert batches(given) == (2 if workers else 3)  # in the process of the last of three batches
    for given in (Wrapper(dataset), Subset(Proxy(dataset), range(COUNT)), ConcatDataset([dataset])):
        assert batches(given) == 0


@pytest.mark.parametrize("workers", WORKERS)
def test_it_joins_with_real_data(tiny_codes: Generator, workers: int) -> None:
    real: Any = [(torch.full((32, 32, 3), number, dtype=torch.uint8), number % 3) for number in range(7)]
    loader = DataLoader(ConcatDataset([real, build(tiny_codes)]), 4, num_workers=workers)
    for number in range(2):
        images, labels = joined(loader)
        assert images[:7, 0, 0, 0].tolist() == list(range(7))
        assert torch.equal(images[7:], epoch(tiny_codes, number))
        assert labels.tolist() == [*(i % 3 for i in range(7)), *(i % 3 for i in range(COUNT))]


# Labels ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "options"),
    [
        *((how, {"num_workers": workers}) for how in ("assign", "edit", "array") for workers in WORKERS),
        ("edit", {"num_workers": 1, "multiprocessing_context": "spawn"}),
    ],
)
def test_noisy_labels_are_handed_out(tiny_codes: Generator, how: str, options: dict[str, Any]) -> None:
    dataset = build(tiny_codes)
    noisy = [int(label) for label in torch.randint(3, (COUNT,), generator=torch.Generator().manual_seed(0))]
    if how == "edit":
        for index, label in enumerate(noisy):
            dataset.targets[index] = label
    else:
        dataset.targets = noisy if how == "assign" else np.array(noisy)
    loader = DataLoader(dataset, 5, **options)
    for number in range(1 if "multiprocessing_context" in options else 2):
        images, labels = joined(loader)
        assert labels.tolist() == noisy
        assert torch.equal(images, epoch(tiny_codes, number)), "a picture stays what it is"
    assert list(dataset.targets) == noisy
    assert dataset[0][1] == dataset.read([0])[0][1] == noisy[0]


# Subsets ---------------------------------------------------------------------------------------------


class Imbalanced(DistilledCIFAR10):
    """As IMBALANCECIFAR10 of LDAM-DRW, with another class to inherit from."""

    cls_num = 3

    def __init__(self, root: str, imb_factor: float = 0.1, train: bool = True, transform: Any = None, **options: Any):
        super().__init__(root, train, transform, None, True, **options)
        sizes = [
            int(len(self.data) / self.cls_num * imb_factor ** (i / (self.cls_num - 1.0))) for i in range(self.cls_num)
        ]
        new_data, new_targets = [], []
        targets_np = np.array(self.targets, dtype=np.int64)
        for the_class, the_img_num in zip(np.unique(targets_np), sizes, strict=True):
            idx = np.where(targets_np == the_class)[0]
            np.random.default_rng(0).shuffle(idx)
            new_data.append(self.data[idx[:the_img_num], ...])
            new_targets.extend([the_class] * the_img_num)
        self.data = np.vstack(new_data)
        self.targets = new_targets
        self.chosen = sizes


class Indexed(DistilledCIFAR10):
    """As FixMatch's CIFAR10SSL: takes its part of the data, and reads it by itself."""

    def __init__(self, root: str, indexs: Any, **options: Any) -> None:
        super().__init__(root, train=True, download=False, **options)
        if indexs is not None:
            self.data = self.data[indexs]
            self.targets = np.array(self.targets)[indexs]

    def __getitem__(self, index: int) -> Any:
        img, target = self.data[index], self.targets[index]
        img = Image.fromarray(img)
        if self.transform is not None:
            img = self.transform(img)
        return img, target


@pytest.mark.parametrize("workers", WORKERS)
def test_a_long_tail_is_cut_as_of_real_data(tiny_codes: Generator, workers: int) -> None:
    dataset = Imbalanced("./data", 0.1, transform=to_array, source=tiny_codes, ipc=20)
    assert dataset.chosen == [20, 6, 2]
    assert len(dataset) == len(dataset.data) == 28
    passes = [joined(DataLoader(dataset, 7, num_workers=workers)) for _ in range(2)]
    for images, labels in passes:
        assert Counter(labels.tolist()) == {0: 20, 1: 6, 2: 2}
        assert np.array_equal(images.numpy(), dataset.data)
    with pytest.raises(IndexError, match="index 28 is out of range: this dataset has 28 pictures"):
        dataset[28]


@pytest.mark.parametrize("workers", WORKERS)
def test_labelled_and_unlabelled_parts_are_taken_by_index(tiny_codes: Generator, workers: int) -> None:
    keep = np.array([3, 16, 5, 9])
    dataset = Indexed("./data", keep, source=tiny_codes, ipc=IPC, transform=to_array)
    for _ in range(2):
        images, labels = joined(DataLoader(dataset, 3, num_workers=workers))
        assert torch.equal(images, epoch(tiny_codes)[keep])
        assert labels.tolist() == [0, 1, 2, 0]
    whole = Indexed("./data", None, source=tiny_codes, ipc=IPC, transform=to_array)
    assert torch.equal(joined(DataLoader(whole, 4, num_workers=workers))[0], epoch(tiny_codes))


def test_clients_get_their_shares_by_label(tiny_codes: Generator) -> None:
    """A Dirichlet partition, as federated scripts make it."""
    dataset, rng = build(tiny_codes), np.random.default_rng(1)
    labels, clients = np.array(dataset.targets), [[] for _ in range(4)]
    for label in range(3):
        places = np.where(labels == label)[0]
        cuts = (np.cumsum(rng.dirichlet([0.5] * 4)) * len(places)).astype(int)[:-1]
        for client, part in zip(clients, np.split(places, cuts), strict=True):
            client.extend(part.tolist())
    assert sorted(place for places in clients for place in places) == list(range(COUNT))
    for number in range(2):
        for places in filter(None, clients):
            images, found = joined(DataLoader(Subset(dataset, places), 4, shuffle=False))
            assert torch.equal(images, epoch(tiny_codes, number)[places])
            assert np.array_equal(found.numpy(), labels[places])


# Edits -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", WORKERS)
def test_a_backdoor_stays_in_the_pictures(tiny_codes: Generator, workers: int) -> None:
    dataset, chosen = build(tiny_codes), [1, 4, 7]
    for index in chosen:
        dataset.data[index, -3:, -3:] = 255
        dataset.targets[index] = 0
    wanted = epoch(tiny_codes)
    wanted[chosen, -3:, -3:] = 255
    for _ in range(3):
        images, labels = joined(DataLoader(dataset, 5, num_workers=workers))
        assert torch.equal(images, wanted)
        assert labels[chosen].tolist() == [0, 0, 0]


# Frameworks ------------------------------------------------------------------------------------------


def test_accelerate_goes_on_after_a_break_when_it_is_told(tiny_codes: Generator) -> None:
    """It announces the passes that came to their end; a plain loader needs nobody."""
    accelerate = pytest.importorskip("accelerate")
    first = epoch(tiny_codes)
    plain = DataLoader(build(tiny_codes), 5)
    loader = accelerate.Accelerator(cpu=True).prepare(DataLoader(build(tiny_codes), 5))
    for feed in (plain, loader):
        for images, _ in feed:
            assert torch.equal(images, first[:5])
            break
    assert torch.equal(next(iter(loader))[0], first[:5]), "set_epoch() says so beside its promise"
    loader.set_epoch(1)
    for feed in (plain, loader):
        assert torch.equal(joined(feed)[0], epoch(tiny_codes, 1))
    assert torch.equal(joined(loader)[0], epoch(tiny_codes, 2))


# torchvision -----------------------------------------------------------------------------------------


def test_transforms_v2_take_items_and_its_wrapper_says_why_not(tiny_codes: Generator) -> None:
    """The wrapper is for torchvision's own classes, and changes nothing of items that are (image, int)."""
    from torchvision import datasets
    from torchvision.transforms import v2

    dataset = build(tiny_codes, transform=v2.Compose([v2.ToImage(), v2.RandomHorizontalFlip()]))
    assert dataset[0][0].shape == (3, 32, 32)
    with pytest.raises(
        TypeError, match=r"subclasses of `torchvision.datasets.VisionDataset`.* got a 'DistilledDataset'"
    ):
        datasets.wrap_dataset_for_transforms_v2(dataset)
