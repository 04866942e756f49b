from __future__ import annotations

import copy
import json
import operator
import pickle
import shutil
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    DistributedSampler,
    Subset,
    WeightedRandomSampler,
    random_split,
)

from dim_data.generator import names
from dim_data.generator.model import Generator
from dim_data.loading import items as module
from dim_data.loading.dataset import DistilledDataset

IPC = 8
COUNT = 3 * IPC


def to_array(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image))


def to_float(image: Image.Image) -> Tensor:
    return to_array(image).float() / 255


def fail(value: Any) -> None:
    raise LookupError(f"no transform for {type(value).__name__}")


class Lines:
    def __repr__(self) -> str:
        return "Lines(\n    one,\n)"


@pytest.fixture(params=["noise", "codes"])
def tiny(request: pytest.FixtureRequest) -> Generator:
    return request.getfixturevalue(f"tiny_{request.param}")


def build(source: Any, **options: Any) -> DistilledDataset:
    return DistilledDataset(source, **{"ipc": IPC, "transform": to_array, **options})


@cache
def pictures(source: Generator, epoch: int, **options: Any) -> Tensor:
    """Every picture of an epoch in order, each drawn by itself."""
    dataset = build(source, **options)
    dataset.set_epoch(epoch)
    return torch.stack([dataset[index][0] for index in range(len(dataset))])


def values(images: Iterable[Any]) -> Counter[bytes]:
    """Pictures without their order."""
    return Counter(np.asarray(image).tobytes() for image in images)


def one_pass(loader: Iterable[Any]) -> Tensor:
    return torch.cat([images for images, _ in loader])


def start(dataset: Dataset[Any], workers: int, persistent: bool, method: str | None, **options: Any) -> DataLoader[Any]:
    return DataLoader(
        dataset,
        **{"batch_size": 5, "shuffle": True, **options},
        num_workers=workers,
        persistent_workers=persistent,
        multiprocessing_context=method,
    )


def raises_in_loader(loader: DataLoader[Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match) as caught:
        one_pass(loader)
    traceback.clear_frames(caught.tb)  # they hold the iterator, which no worker forked later may finalise


LOADERS = [
    pytest.param(0, False, None, id="main"),
    pytest.param(2, False, "fork", id="fork"),
    pytest.param(2, True, "fork", id="fork-persistent"),
]


# A sample is a pure function -------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, -5, 1 << 70])
@pytest.mark.parametrize("epoch", [0, 1, 1000])
def test_a_picture_is_the_generators(tiny: Generator, epoch: int, seed: int) -> None:
    labels, slots = torch.arange(COUNT) % 3, torch.arange(COUNT) // 3
    wanted = tiny.synthesize(labels, epoch * IPC + slots, seed).permute(0, 2, 3, 1).squeeze(3)
    assert torch.equal(pictures(tiny, epoch, seed=seed), wanted)


@pytest.mark.parametrize(
    "batches",
    [
        [list(range(COUNT))],
        [list(range(COUNT))[::-1]],
        [[index] for index in range(COUNT)],
        [list(range(start, COUNT, 7)) for start in range(7)],
        [[7, 7, 7], [-1, COUNT - 1], [np.int64(3)], [torch.tensor(4)]],
        [[]],
    ],
)
def test_a_picture_does_not_depend_on_its_batch(tiny: Generator, batches: list[list[Any]]) -> None:
    dataset, wanted = build(tiny), pictures(tiny, 2)
    dataset.set_epoch(2)
    for batch in batches:
        items = dataset.read(batch)
        assert len(items) == len(batch)
        for index, (image, label) in zip(batch, items, strict=True):
            assert torch.equal(image, wanted[int(index)])
            assert label == int(index) % COUNT % 3


@pytest.mark.parametrize(("workers", "persistent", "method"), LOADERS)
def test_a_picture_does_not_depend_on_who_makes_it(
    tiny: Generator, workers: int, persistent: bool, method: str | None
) -> None:
    order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(1))
    for size in (3, 10):
        loader = start(build(tiny), workers, persistent, method, batch_size=size, shuffle=False, sampler=order.tolist())
        for epoch in range(2):
            assert torch.equal(one_pass(loader), pictures(tiny, epoch)[order])


def test_seeds_epochs_and_indices_all_matter(tiny_noise: Generator) -> None:
    images = [pictures(tiny_noise, epoch, seed=seed) for epoch in range(3) for seed in (0, 1, -1)]
    assert max(values(torch.cat(images)).values()) == 1


def test_a_round_of_epochs_shows_every_code_once(tiny_codes: Generator) -> None:
    codes = values(tiny_codes.decode(torch.arange(120)).permute(0, 2, 3, 1))
    assert len(codes) == 120
    rounds = [torch.cat([pictures(tiny_codes, epoch) for epoch in range(first, first + 5)]) for first in (0, 5)]
    assert values(rounds[0]) == values(rounds[1]) == codes
    assert not torch.equal(rounds[0], rounds[1])


@pytest.mark.parametrize("ipc", [1, 2, 50])
def test_labels_are_balanced(tiny: Generator, ipc: int) -> None:
    dataset = build(tiny, ipc=ipc)
    assert len(dataset) == len(dataset.targets) == 3 * ipc
    labels = [label for _, label in dataset.read(range(len(dataset)))]
    assert labels == dataset.targets
    assert Counter(labels) == {0: ipc, 1: ipc, 2: ipc}


# Every epoch is new ----------------------------------------------------------------------------------


def check_epochs(source: Generator, loader: DataLoader[Any], dataset: DistilledDataset, epochs: Iterable[int]) -> None:
    for epoch in epochs:
        images, labels = (torch.cat(parts) for parts in zip(*loader, strict=True))
        assert values(images) == values(pictures(source, epoch))
        assert labels.bincount().tolist() == [IPC] * 3
        assert dataset.epoch == epoch


@pytest.mark.parametrize(("workers", "persistent", "method"), LOADERS)
def test_every_pass_is_new(tiny_codes: Generator, workers: int, persistent: bool, method: str | None) -> None:
    dataset = build(tiny_codes)
    assert dataset.epoch == 0
    check_epochs(tiny_codes, start(dataset, workers, persistent, method), dataset, range(4))


@pytest.mark.parametrize(("workers", "persistent", "method"), LOADERS)
def test_set_epoch_pins_and_lets_go(tiny_noise: Generator, workers: int, persistent: bool, method: str | None) -> None:
    dataset = build(tiny_noise)
    loader = start(dataset, workers, persistent, method)
    check_epochs(tiny_noise, loader, dataset, [0])
    for epoch in (7, 3):
        dataset.set_epoch(epoch)
        check_epochs(tiny_noise, loader, dataset, [epoch, epoch])
    dataset.set_epoch(None)
    check_epochs(tiny_noise, loader, dataset, [8, 9])


@pytest.mark.parametrize(("workers", "persistent", "pins"), [(1, False, []), (2, True, [7])])
def test_spawned_workers_see_every_pass_new(
    tiny_codes: Generator, workers: int, persistent: bool, pins: list[int]
) -> None:
    dataset = build(tiny_codes)
    loader = start(dataset, workers, persistent, "spawn")
    check_epochs(tiny_codes, loader, dataset, [0, 1])
    for epoch in pins:
        dataset.set_epoch(epoch)
        check_epochs(tiny_codes, loader, dataset, [epoch])


@pytest.mark.parametrize(("workers", "persistent", "method"), LOADERS)
def test_a_fixed_set_never_changes(tiny_codes: Generator, workers: int, persistent: bool, method: str | None) -> None:
    dataset = build(tiny_codes, fixed=True)
    loader = start(dataset, workers, persistent, method)
    check_epochs(tiny_codes, loader, dataset, [0, 0])
    dataset.set_epoch(5)
    check_epochs(tiny_codes, loader, dataset, [0])
    assert torch.equal(torch.from_numpy(dataset.data), pictures(tiny_codes, 0))


def test_drawing_again_moves_on(tiny: Generator) -> None:
    dataset = build(tiny)
    for epoch in range(3):
        assert torch.equal(dataset[5][0], pictures(tiny, epoch)[5])
    images = [image for image, _ in dataset.read([5, 5, 6])]
    assert torch.equal(torch.stack(images), torch.stack([pictures(tiny, e)[i] for e, i in [(3, 5), (4, 5), (3, 6)]]))


def test_a_pass_cut_short_does_not_stop_the_next(tiny: Generator) -> None:
    dataset = build(tiny)
    loader = start(dataset, 0, False, None, shuffle=False)
    next(iter(loader))
    for epoch in (1, 2):
        assert torch.equal(one_pass(loader), pictures(tiny, epoch))


@pytest.mark.parametrize(
    ("epoch", "error", "sentence"),
    [
        (-1, ValueError, "epoch must be at least 0, got -1"),
        (1 << 31, ValueError, "epoch must be at most 2147483646, got 2147483648"),
        (0.5, TypeError, r"epoch must be an int, got 0\.5"),
        (False, TypeError, "epoch must be an int, got False"),
    ],
)
def test_bad_epochs_raise(tiny_noise: Generator, epoch: Any, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        build(tiny_noise).set_epoch(epoch)


# Drop-in ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["item", "items", "worker"])
def test_items_are_pictures_and_ints(tiny: Generator, how: str) -> None:
    dataset = build(tiny, transform=None)
    items = {
        "item": lambda: [dataset[4]],
        "items": lambda: dataset.read([4, 5]),
        "worker": lambda: next(iter(DataLoader(dataset, sampler=[4, 5], num_workers=1, collate_fn=list))),
    }[how]()
    for image, label in items:
        assert isinstance(image, Image.Image)
        assert image.mode == ("L" if tiny.spec.channels == 1 else "RGB")
        assert image.size == (tiny.spec.size, tiny.spec.size)
        assert type(label) is int
    assert np.array_equal(np.array(items[0][0]), pictures(tiny, 0)[4].numpy())


def test_transforms_map_images_and_labels_and_may_come_later(tiny_codes: Generator) -> None:
    dataset = build(tiny_codes, transform=None)
    assert dataset.transform is None
    assert dataset.target_transform is None
    dataset.transform, dataset.target_transform = operator.attrgetter("mode"), str
    assert dataset[4] == ("RGB", "1")
    assert dataset.read([0, 5]) == [("RGB", "0"), ("RGB", "2")]
    assert dataset.targets[:4] == [0, 1, 2, 0]
    dataset.transform = dataset.target_transform = None
    assert isinstance(dataset[0][0], Image.Image)
    given = DistilledDataset(tiny_codes, transform=operator.attrgetter("size"), target_transform=float)
    assert given[1] == ((32, 32), 1.0)


def test_names_and_targets_are_those_of_torchvision(tiny: Generator) -> None:
    dataset = build(tiny, target_transform=str)
    assert isinstance(dataset, Dataset)
    assert dataset.classes == ["class0", "class1", "class2"]
    assert dataset.class_to_idx == {"class0": 0, "class1": 1, "class2": 2}
    assert type(dataset.targets) is list
    assert all(type(label) is int for label in dataset.targets)
    assert dataset.targets == [0, 1, 2] * IPC
    assert dataset.spec is tiny.spec


def test_data_is_the_current_epoch_and_no_draw(tiny: Generator) -> None:
    dataset = build(tiny)
    shape = (COUNT, 28, 28) if tiny.spec.channels == 1 else (COUNT, 32, 32, 3)
    for epoch in range(3):
        assert np.array_equal(one_pass(start(dataset, 0, False, None, shuffle=False)).numpy(), dataset.data)
        assert (dataset.data.shape, dataset.data.dtype) == (shape, np.uint8)
        assert dataset.epoch == epoch
    dataset.set_epoch(9)
    assert np.array_equal(dataset.data, pictures(tiny, 9).numpy())


def test_negative_indices_count_from_the_end(tiny: Generator) -> None:
    dataset, wanted = build(tiny), pictures(tiny, 0)
    for index in (-1, -COUNT):
        image, label = dataset[index]
        assert torch.equal(image, wanted[index])
        assert label == dataset.targets[index]


@pytest.mark.parametrize("index", [COUNT, -COUNT - 1, 10**30])
def test_an_index_past_the_end_raises_and_draws_nothing(tiny_noise: Generator, index: int) -> None:
    dataset = build(tiny_noise)
    sentence = f"index {index} is out of range: this dataset has {COUNT} pictures"
    with pytest.raises(IndexError, match=sentence):
        dataset[index]
    with pytest.raises(IndexError, match=sentence):
        dataset.read([0, index])
    assert torch.equal(dataset[0][0], pictures(tiny_noise, 0)[0])


@pytest.mark.parametrize("index", ["0", 0.0, None, slice(0, 2)])
def test_an_index_is_an_int(tiny_noise: Generator, index: Any) -> None:
    with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
        build(tiny_noise)[index]


@pytest.mark.parametrize("wrap", [list, lambda dataset: DataLoader(dataset, batch_size=None)], ids=["for", "loader"])
def test_a_pass_without_batches_is_a_pass(tiny_noise: Generator, wrap: Callable[[Any], Iterable[Any]]) -> None:
    dataset = build(tiny_noise)
    for epoch in range(2):
        images = [image for image, _ in wrap(dataset)]
        assert torch.equal(torch.stack(images), pictures(tiny_noise, epoch))


def test_repr_says_what_it_is(tiny_codes: Generator, codes_folder: Path) -> None:
    dataset = DistilledDataset(tiny_codes, ipc=4)
    head = (
        "Dataset DistilledDataset\n    Number of datapoints: 12\n    Source: {}\n    Images per class: 4 of 3 classes"
    )
    assert repr(dataset) == head.format("tiny") + "\n    Epoch: 0 (new in each pass)"
    dataset.read([0, 0])
    assert repr(dataset).endswith("\n    Epoch: 1 (new in each pass)")
    dataset.set_epoch(7)
    assert repr(dataset).endswith("\n    Epoch: 7 (pinned)")
    dataset.transform, dataset.target_transform = Lines(), Lines()
    lines = "Lines(\n        one,\n    )"
    assert repr(dataset).endswith(f"Epoch: 7 (pinned)\n    Transform: {lines}\n    Target transform: {lines}")
    fixed = DistilledDataset(str(codes_folder), ipc=4, fixed=True)
    assert repr(fixed) == head.format(codes_folder) + "\n    Epoch: 0 (fixed)"


def test_a_test_set_is_refused(tiny_noise: Generator) -> None:
    DistilledDataset(tiny_noise, train=True)
    sentence = "train=False asks for a test set, and synthetic images are never one: test on the real images, for"
    with pytest.raises(ValueError, match=sentence):
        DistilledDataset(tiny_noise, train=False)


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"ipc": 0}, ValueError, "ipc must be at least 1, got 0"),
        ({"ipc": -3}, ValueError, "ipc must be at least 1, got -3"),
        ({"ipc": True}, TypeError, "ipc must be an int, got True"),
        ({"ipc": 2.0}, TypeError, r"ipc must be an int, got 2\.0"),
        ({"ipc": "50"}, TypeError, "ipc must be an int, got '50'"),
        ({"seed": None}, TypeError, "seed must be an int, got None"),
        ({"seed": False}, TypeError, "seed must be an int, got False"),
        ({"seed": 0.5}, TypeError, r"seed must be an int, got 0\.5"),
    ],
)
def test_bad_arguments_raise(
    tiny_noise: Generator, options: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        DistilledDataset(tiny_noise, **options)


# Wrappers and samplers -------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_a_subset_is_new_in_every_pass(tiny_noise: Generator, workers: int) -> None:
    places = [3, 20, 0, 11, 12, 7]
    loader = DataLoader(Subset(build(tiny_noise), places), batch_size=4, num_workers=workers)
    for epoch in range(3):
        assert torch.equal(one_pass(loader), pictures(tiny_noise, epoch)[places])


def test_the_parts_of_a_split_stay_in_step(tiny: Generator) -> None:
    parts = random_split(build(tiny), [0.7, 0.3], generator=torch.Generator().manual_seed(0))
    loaders = [DataLoader(part, batch_size=5, shuffle=True) for part in parts]
    for epoch in range(3):
        images = torch.cat([one_pass(loader) for loader in loaders])
        assert values(images) == values(pictures(tiny, epoch))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_concatenation_is_new_in_every_pass(tiny_noise: Generator, workers: int) -> None:
    loader = DataLoader(
        ConcatDataset([build(tiny_noise), build(tiny_noise, seed=1, ipc=2)]), batch_size=5, num_workers=workers
    )
    for epoch in range(3):
        wanted = torch.cat([pictures(tiny_noise, epoch), pictures(tiny_noise, epoch, seed=1, ipc=2)])
        assert torch.equal(one_pass(loader), wanted)
    assert isinstance(build(tiny_noise) + build(tiny_noise), ConcatDataset)


def test_drawing_with_replacement_never_repeats_a_picture(tiny_noise: Generator) -> None:
    dataset = build(tiny_noise)
    sampler = WeightedRandomSampler(
        torch.arange(1.0, COUNT + 1).tolist(), 40, generator=torch.Generator().manual_seed(0)
    )
    loader = DataLoader(dataset, batch_size=10, sampler=sampler)
    images = torch.cat([one_pass(loader) for _ in range(3)])
    assert len(values(images)) == len(images) == 120
    assert dataset.epoch > 2


def distribute(source: Generator, ranks: int, shuffle: bool) -> list[tuple[DistilledDataset, DataLoader[Any]]]:
    made = []
    for rank in range(ranks):
        dataset = build(source)
        sampler = DistributedSampler(dataset, ranks, rank, shuffle=shuffle)
        made.append((dataset, DataLoader(dataset, batch_size=5, sampler=sampler)))
    return made


@pytest.mark.parametrize(("shuffle", "pin"), [(False, False), (False, True), (True, True)])
def test_ranks_share_out_the_pictures_of_an_epoch(tiny: Generator, shuffle: bool, pin: bool) -> None:
    ranks = distribute(tiny, 2, shuffle)
    for epoch in range(3):
        images = []
        for dataset, loader in ranks:
            loader.sampler.set_epoch(epoch)
            if pin:
                dataset.set_epoch(epoch)
            images.append(one_pass(loader))
        assert [len(part) for part in images] == [COUNT // 2] * 2
        assert values(torch.cat(images)) == values(pictures(tiny, epoch))


def test_ranks_never_see_a_picture_again_though_nobody_pins(tiny_noise: Generator) -> None:
    for _, loader in distribute(tiny_noise, 2, shuffle=True):
        images = []
        for epoch in range(6):
            loader.sampler.set_epoch(epoch)
            images.append(one_pass(loader))
        assert max(values(torch.cat(images)).values()) == 1


# Batches ---------------------------------------------------------------------------------------------


@pytest.fixture
def painted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures each call painted in this process."""
    calls: list[int] = []
    paint = Generator.paint

    def count(self: Generator, latents: Tensor, labels: Tensor) -> Tensor:
        calls.append(len(labels))
        return paint(self, latents, labels)

    monkeypatch.setattr(Generator, "paint", count)
    return calls


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_batch_takes_one_forward_pass(tiny_noise: Generator, painted: list[int], depth: int) -> None:
    given: Any = build(tiny_noise)
    for _ in range(depth):
        given = Subset(given, range(COUNT))
    one_pass(DataLoader(given, batch_size=10))
    assert painted == [10, 10, 4]


def test_a_batch_in_a_worker_takes_one_forward_pass(tiny_noise: Generator, painted: list[int]) -> None:
    def tell(batch: Any) -> int:
        return len(painted)

    assert list(DataLoader(build(tiny_noise), batch_size=8, num_workers=1, collate_fn=tell)) == [1, 2, 3]


@pytest.mark.parametrize("order", [range(COUNT), torch.randperm(COUNT, generator=torch.Generator().manual_seed(0))])
def test_a_pass_one_by_one_paints_each_picture_once(
    tiny_noise: Generator, painted: list[int], order: Iterable[int]
) -> None:
    dataset = build(tiny_noise, ipc=32)  # 96 pictures: six blocks of 16
    whole = [int(index) + 24 * part for part in range(4) for index in order]
    for _ in range(2):
        painted.clear()
        for index in whole:
            dataset[index]
        assert painted == [16] * 6


def test_reading_at_once_takes_one_forward_pass(tiny_noise: Generator, painted: list[int]) -> None:
    build(tiny_noise).read(range(10))
    assert painted == [10]


def test_data_is_painted_once_in_an_epoch(tiny: Generator, painted: list[int]) -> None:
    dataset = build(tiny)
    for epoch in range(2):
        dataset.set_epoch(epoch)
        painted.clear()
        arrays = [dataset.data for _ in range(5)]
        items = [dataset[index][0] for index in range(COUNT)]
        assert painted == [COUNT]
        assert all(array is arrays[0] for array in arrays)
        assert torch.equal(torch.stack(items), pictures(tiny, epoch))


@pytest.mark.parametrize("workers", [0, 1])
def test_what_is_handed_out_can_be_trained_on(tiny_noise: Generator, workers: int) -> None:
    images, labels = next(iter(DataLoader(build(tiny_noise, transform=to_float), batch_size=6, num_workers=workers)))
    assert not images.is_inference()
    net = nn.Linear(28 * 28, 3)
    nn.functional.cross_entropy(net(images.requires_grad_().flatten(1)), labels).backward()
    assert images.grad is not None
    assert net.weight.grad is not None


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("name", ["transform", "target_transform"])
def test_a_transform_that_fails_is_heard_and_leaves_the_dataset_usable(
    tiny_noise: Generator, name: str, workers: int
) -> None:
    dataset = build(tiny_noise, **{name: fail})
    given = "Image" if name == "transform" else "int"
    loader = DataLoader(dataset, batch_size=COUNT, num_workers=workers)
    raises_in_loader(loader, LookupError, f"no transform for {given}")
    setattr(dataset, name, to_array if name == "transform" else None)
    for epoch in (1, 2):
        assert torch.equal(one_pass(loader), pictures(tiny_noise, epoch))


# Devices ---------------------------------------------------------------------------------------------


def test_pictures_can_be_made_on_the_device(tiny: Generator, device: torch.device) -> None:
    dataset = build(tiny, device=device)
    assert next(dataset.generator.parameters()).device.type == device.type
    assert torch.equal(one_pass(DataLoader(dataset, batch_size=5)), pictures(tiny, 0, device=device))


def test_a_generator_that_is_in_place_is_not_copied(tiny_noise: Generator) -> None:
    assert DistilledDataset(tiny_noise).generator is tiny_noise
    assert DistilledDataset(tiny_noise).device == torch.device("cpu")


def test_a_missing_gpu_raises(tiny_noise: Generator) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(RuntimeError, match="'cuda' was asked for, but torch finds no GPU here; pass device='cpu'"):
        DistilledDataset(tiny_noise, device="cuda")


WAYS_OUT = (
    r"pictures on 'cuda', and DataLoader's workers cannot: use num_workers=0 \(or DistilledLoader, .*\), "
    r"or build it with device='cpu'"
)


def test_a_gpu_in_a_worker_raises_and_names_the_ways_out(tiny_noise: Generator) -> None:
    dataset = build(tiny_noise)
    dataset._device = torch.device("cuda")  # the question comes before any work there
    raises_in_loader(DataLoader(dataset, num_workers=1), RuntimeError, WAYS_OUT)


def test_a_gpu_in_the_main_process_is_welcome(tiny_noise: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = build(tiny_noise)
    dataset._device = torch.device("cuda")
    dataset[0]
    monkeypatch.setattr(module, "get_worker_info", lambda: SimpleNamespace(id=0, num_workers=1))
    for draw in (lambda: dataset[0], lambda: dataset.read([0, 1])):
        with pytest.raises(RuntimeError, match=WAYS_OUT):
            draw()


# Sources ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["generator", "folder", "text", "bundled", "hub"])
def test_a_source_is_any_name_of_a_generator(
    form: str, tiny_noise: Generator, noise_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def pull(repo_id: str, **options: Any) -> tuple[Path, str]:
        asked.append((repo_id, options))
        return noise_folder, "1234abcd"

    shutil.copytree(noise_folder, tmp_path / "bundle" / "pets")
    monkeypatch.setattr(names, "BUNDLED", tmp_path / "bundle")
    monkeypatch.setattr(names, "pull", pull)
    options = {"revision": "v1", "token": "secret"} if form == "hub" else {}
    sources = {"generator": tiny_noise, "folder": noise_folder, "text": str(noise_folder), "bundled": "pets"}
    dataset = build(sources.get(form, "user/pets"), **options)
    assert torch.equal(one_pass(DataLoader(dataset, batch_size=5)), pictures(tiny_noise, 0))
    assert asked == ([("user/pets", options)] if form == "hub" else [])
    assert ("Source: user/pets at 1234abcd\n" in repr(dataset)) == (form == "hub")


def test_a_folder_comes_before_a_bundled_name(
    noise_folder: Path, codes_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(noise_folder, tmp_path / "bundle" / "codes")
    monkeypatch.setattr(names, "BUNDLED", tmp_path / "bundle")
    assert DistilledDataset("codes").generator.config.source == "noise"
    monkeypatch.chdir(codes_folder.parent)
    assert DistilledDataset("codes").generator.config.source == "codes"


def test_bad_sources_raise(tiny_noise: Generator) -> None:
    with pytest.raises(FileNotFoundError, match=r"unknown source 'cifar1': a source is a folder .* or a Hub id like"):
        DistilledDataset("cifar1")
    with pytest.raises(TypeError, match=r"a source is a folder .*; got Spec"):
        DistilledDataset(type("Spec", (), {})())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"revision='v1' selects a commit .* use Generator.from_pretrained\('user/"):
        DistilledDataset(tiny_noise, revision="v1")


# Copies and states -----------------------------------------------------------------------------------


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda d: pickle.loads(pickle.dumps(d))])
@pytest.mark.parametrize("pin", [None, 6])
def test_a_copy_goes_on_by_itself(
    tiny: Generator, duplicate: Callable[[DistilledDataset], DistilledDataset], pin: int | None
) -> None:
    dataset = build(tiny, seed=2, target_transform=float)
    assert dataset.targets[1] == 1
    one_pass(start(dataset, 0, False, None))
    dataset.set_epoch(pin)
    other = duplicate(dataset)
    assert repr(other) == repr(dataset)
    wanted = pictures(tiny, 1 if pin is None else pin, seed=2)
    for each in (dataset, other):
        images, labels = zip(*each.read(range(COUNT)), strict=True)
        assert torch.equal(torch.stack(images), wanted)
        assert type(labels[0]) is float
        dataset.set_epoch(9)
    assert other.epoch != 9


def stateful(source: Generator, workers: int, persistent: bool) -> Any:
    loaders = pytest.importorskip("torchdata.stateful_dataloader")
    dataset = build(source)
    sampler = DistributedSampler(dataset, num_replicas=1, rank=0)
    return loaders.StatefulDataLoader(
        dataset, batch_size=5, sampler=sampler, num_workers=workers, persistent_workers=persistent
    )


def play(loader: Any, first: int, passes: int = 3) -> Iterator[tuple[int, Tensor]]:
    for number in range(first, passes):
        loader.sampler.set_epoch(number)
        for images, _ in loader:
            yield number, images


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")
@pytest.mark.parametrize(("workers", "persistent"), [(0, False), (2, False), (2, True)])
def test_torchdata_resumes_in_mid_epoch(tiny_noise: Generator, workers: int, persistent: bool) -> None:
    loader = stateful(tiny_noise, workers, persistent)
    images, states = [], [(0, loader.state_dict())]
    for number, batch in play(loader, 0):
        images.append(batch)
        states.append((number, json.loads(json.dumps(loader.state_dict()))))
    for epoch in range(3):
        assert values(torch.cat(images[5 * epoch : 5 * epoch + 5])) == values(pictures(tiny_noise, epoch))
    for count in (1, 5, 7):
        number, state = states[count]
        resumed = stateful(tiny_noise, workers, persistent)
        resumed.load_state_dict(state)
        rest = [batch for _, batch in play(resumed, number)]
        assert [len(batch) for batch in rest] == [len(batch) for batch in images[count:]]
        assert torch.equal(torch.cat(rest), torch.cat(images[count:]))


@pytest.mark.parametrize("drawn", [0, 1, 10, COUNT, COUNT + 7])
@pytest.mark.parametrize("pin", [None, 4])
def test_a_state_goes_on_where_it_was_taken(tiny: Generator, drawn: int, pin: int | None) -> None:
    dataset = build(tiny, seed=3)
    for index in range(drawn):
        dataset[index % COUNT]
    dataset.set_epoch(pin)
    state = json.loads(json.dumps(dataset.state_dict()))
    other = build(tiny, seed=3)
    other[0], other[0], other[0]
    other.load_state_dict(state)
    assert repr(other) == repr(dataset)
    for index in range(drawn, drawn + COUNT):
        assert torch.equal(other[index % COUNT][0], dataset[index % COUNT][0])


def test_the_state_of_a_million_pictures_is_small(tiny_noise: Generator) -> None:
    assert len(json.dumps(build(tiny_noise, ipc=333_333).state_dict())) < 260_000


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"ipc": 9}, "saved with ipc=9, but here ipc=8: build it with ipc=9 to go on"),
        ({"seed": 1}, "saved with seed=1, but here seed=0: build it with seed=1 to go on"),
    ],
)
def test_a_state_of_other_settings_raises(tiny_noise: Generator, options: dict[str, int], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        build(tiny_noise).load_state_dict(build(tiny_noise, **options).state_dict())


def test_a_state_of_other_classes_raises(tiny_noise: Generator) -> None:
    state = build(tiny_noise).state_dict()
    state["settings"]["num_classes"] = 10
    with pytest.raises(ValueError, match="saved with num_classes=10, but here num_classes=3"):
        build(tiny_noise).load_state_dict(state)


@pytest.mark.parametrize("state", [{}, None, {"epoch": 1, "batch": 2, "settings": {}}])
def test_what_is_no_state_raises(tiny_noise: Generator, state: Any) -> None:
    with pytest.raises(ValueError, match=r"a state has the keys \['drawn', 'epoch', 'pinned', 'settings'\], got"):
        build(tiny_noise).load_state_dict(state)


@pytest.mark.parametrize("name", ["generator", "ipc", "soft_labels", "refresh"])
def test_what_pictures_were_planned_by_is_not_to_be_changed(tiny_noise: Generator, name: str) -> None:
    dataset = DistilledDataset(tiny_noise, ipc=2)
    with pytest.raises(ValueError, match=rf"{name} is not to be changed in a dataset: make another, as in Distilled"):
        setattr(dataset, name, 1)
    assert len(dataset) == 6
    dataset.seed = np.int64(7)
    assert dataset[0][0].tobytes() == DistilledDataset(tiny_noise, ipc=2, seed=7)[0][0].tobytes()
