from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dim_data.generator import names
from dim_data.generator.model import Generator
from dim_data.loading.dataset import DistilledDataset
from dim_data.loading.loader import DistilledLoader
from dim_data.networks import ConvNet

IPC = 8
COUNT = 3 * IPC


@pytest.fixture(params=["noise", "codes"])
def tiny(request: pytest.FixtureRequest) -> Generator:
    return request.getfixturevalue(f"tiny_{request.param}")


def build(source: Any, batch_size: int = 5, **options: Any) -> DistilledLoader:
    return DistilledLoader(source, batch_size, **{"ipc": IPC, "device": "cpu", "dtype": torch.uint8, **options})


def join(batches: Iterable[tuple[Any, Tensor]]) -> tuple[Tensor, Tensor]:
    images, labels = (torch.cat(parts).cpu() for parts in zip(*batches, strict=True))
    return images, labels


def expect(source: Any, epoch: int, **options: Any) -> Tensor:
    """The pictures of an epoch in order, (N, C, H, W), as the dataset has them."""
    dataset = DistilledDataset(source, **{"ipc": IPC, **options})
    dataset.set_epoch(epoch)
    data = dataset.data
    return torch.from_numpy(data[:, None] if data.ndim == 3 else data.transpose(0, 3, 1, 2))


def values(images: Tensor, labels: Tensor) -> list[tuple[int, bytes]]:
    """Pictures with their labels, without their order."""
    return sorted((int(label), image.numpy().tobytes()) for image, label in zip(images, labels, strict=True))


def same(one: Iterable[Any], other: Iterable[Any]) -> bool:
    return all(torch.equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True))


# Batches ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 5, 16, 100])
def test_pictures_are_those_of_the_dataset(tiny: Generator, batch_size: int, device: torch.device) -> None:
    loader = build(tiny, batch_size, seed=4, shuffle=False, device=device)
    for epoch in range(3):
        images, labels = join(loader)
        assert torch.equal(images, expect(tiny, epoch, seed=4, device=device))
        assert labels.tolist() == [0, 1, 2] * IPC


@pytest.mark.parametrize("batch_size", [1, 5, 16, 100])
def test_shuffling_changes_only_the_order(tiny: Generator, batch_size: int, device: torch.device) -> None:
    loader = build(tiny, batch_size, seed=4, device=device)
    for epoch in range(3):
        images, labels = join(loader)
        wanted = expect(tiny, epoch, seed=4, device=device)
        assert values(images, labels) == values(wanted, torch.arange(COUNT) % 3)
        assert not torch.equal(images, wanted)


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.float32, torch.float16, torch.bfloat16, torch.float64], ids=lambda d: str(d)[6:]
)
def test_batches_are_plain_tensors_on_the_device(tiny: Generator, dtype: torch.dtype, device: torch.device) -> None:
    spec, wanted = tiny.spec, expect(tiny, 0, device=device)
    images, labels = next(iter(build(tiny, 6, shuffle=False, device=device, dtype=dtype)))
    assert (images.shape, images.dtype) == ((6, spec.channels, spec.size, spec.size), dtype)
    assert (labels.tolist(), labels.dtype) == ([0, 1, 2, 0, 1, 2], torch.int64)
    assert images.device.type == labels.device.type == device.type
    assert not images.requires_grad
    floats = wanted[:6].to(dtype) / 255
    assert torch.equal(images.cpu(), wanted[:6] if dtype == torch.uint8 else floats.to(dtype))
    assert images.min() >= 0
    assert images.max() <= (255 if dtype == torch.uint8 else 1)


def test_images_are_floats_by_default(tiny: Generator) -> None:
    loader = DistilledLoader(tiny, device="cpu")
    assert (loader.batch_size, loader.ipc, loader.seed, loader.shuffle, loader.dtype) == (128, 50, 0, True, torch.float)
    images, _ = next(iter(loader))
    assert (images.shape[0], images.dtype) == (128, torch.float32)
    assert 0 <= images.min() < images.max() <= 1


def test_batches_can_be_trained_on(tiny_noise: Generator, device: torch.device) -> None:
    images, labels = next(iter(build(tiny_noise, dtype=torch.float32, device=device)))
    assert not images.is_inference()
    assert not labels.is_inference()
    net = nn.Linear(28 * 28, 3).to(device)
    nn.functional.cross_entropy(net(images.requires_grad_().flatten(1)), labels).backward()
    assert images.grad is not None
    assert net.weight.grad is not None


def test_what_a_caller_does_to_a_batch_stays_there(tiny: Generator) -> None:
    loader = build(tiny, COUNT, shuffle=False)
    for epoch in range(2):
        images, labels = next(iter(loader))
        assert torch.equal(images, expect(tiny, epoch))
        images.zero_()
        labels.zero_()


def test_a_transform_maps_batches_and_may_come_later(tiny: Generator) -> None:
    plain = build(tiny, dtype=torch.float32)
    loader = build(tiny, dtype=torch.float32, transform=tiny.spec.normalize)
    assert same(loader, [(tiny.spec.normalize(images), labels) for images, labels in plain])
    loader.transform = len
    assert [images for images, _ in loader] == [5, 5, 5, 5, 4]
    loader.transform = None
    plain.set_epoch(2)
    assert same(loader, plain)


def test_a_transform_that_fails_is_heard_and_leaves_the_loader_usable(tiny: Generator) -> None:
    def fail(images: Tensor) -> None:
        raise LookupError(f"no transform for {len(images)} images")

    loader = build(tiny, shuffle=False, transform=fail)
    with pytest.raises(LookupError, match="no transform for 5 images"):
        next(iter(loader))
    loader.transform = None
    assert torch.equal(join(loader)[0], expect(tiny, 1))


def test_nothing_is_compiled_for_a_batch(tiny_codes: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise AssertionError("the first batch would wait for a compiler, and compiled kernels round otherwise")

    monkeypatch.setenv("DIM_DATA_COMPILE", "1")
    monkeypatch.setattr(torch, "compile", refuse)
    taught = tiny_codes.forget_codes(2, ConvNet(tiny_codes.spec))
    for generator, soft in ((tiny_codes, False), (taught, True)):
        assert len(list(build(generator, soft_labels=soft))) == 5
        assert DistilledDataset(generator, ipc=IPC, soft_labels=soft).read([0, 1])


# Epochs ----------------------------------------------------------------------------------------------


def test_each_iter_is_a_new_epoch(tiny_noise: Generator) -> None:
    loader = build(tiny_noise)
    assert loader.epoch == 0
    images = []
    for epoch in range(4):
        images.append(join(loader)[0])
        assert loader.epoch == epoch
    assert len(torch.cat(images).flatten(1).unique(dim=0)) == 4 * COUNT


def test_a_pass_broken_off_is_over(tiny: Generator) -> None:
    loader = build(tiny, shuffle=False)
    next(iter(loader))
    assert torch.equal(join(loader)[0], expect(tiny, 1))


def test_set_epoch_chooses_the_next_pass(tiny: Generator) -> None:
    loader = build(tiny, shuffle=False)
    next(iter(loader))
    for epochs in ([7, 8], [7, 8, 9], [0], [2_147_483_646]):
        loader.set_epoch(epochs[0])
        assert loader.epoch == epochs[0]
        for epoch in epochs:
            assert torch.equal(join(loader)[0], expect(tiny, epoch))
            assert loader.epoch == epoch


@pytest.mark.parametrize(
    ("epoch", "error", "sentence"),
    [
        (-1, ValueError, "epoch must be at least 0, got -1"),
        (1 << 31, ValueError, "epoch must be at most 2147483646, got 2147483648"),
        (None, TypeError, "epoch must be an int, got None"),
        (1.0, TypeError, r"epoch must be an int, got 1\.0"),
        (True, TypeError, "epoch must be an int, got True"),
    ],
)
def test_bad_epochs_raise(tiny_noise: Generator, epoch: Any, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        build(tiny_noise).set_epoch(epoch)


def test_order_is_a_pure_function_of_seed_and_epoch(tiny_noise: Generator) -> None:
    orders = {}
    for seed, epoch, batch_size in itertools.product((0, 1), (0, 1), (5, 24)):
        loader = build(tiny_noise, batch_size, seed=seed)
        loader.set_epoch(epoch)
        torch.manual_seed(batch_size)
        labels = tuple(join(loader)[1].tolist())
        assert orders.setdefault((seed, epoch), labels) == labels
    assert len(set(orders.values())) == 4


def test_shuffling_puts_every_class_in_every_place(tiny_noise: Generator) -> None:
    # Over many epochs each place holds each class a third of the time: with 300 draws, 100 give or take 8.
    loader = build(tiny_noise, 12, ipc=4)
    labels = torch.stack([torch.cat([labels for _, labels in loader]) for _ in range(300)])
    for label in range(3):
        assert ((labels == label).sum(0) - 100).abs().max() < 40


def test_iterators_run_side_by_side(tiny: Generator) -> None:
    loader, alone = build(tiny), build(tiny)
    pairs = list(zip(loader, loader, strict=True))
    for epoch in range(2):
        assert same([pair[epoch] for pair in pairs], alone)
    assert loader.epoch == 1


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize(("batch_size", "full", "rest"), [(1, 24, 0), (5, 4, 4), (24, 1, 0), (25, 0, 24)])
def test_len_counts_batches(tiny_noise: Generator, batch_size: int, full: int, rest: int, drop_last: bool) -> None:
    if drop_last and not full:  # an endless loop over epochs, in a script that counts steps
        with pytest.raises(ValueError, match="an epoch of 24 pictures has no full batch of 25, and drop_last=True"):
            build(tiny_noise, batch_size, drop_last=True)
        return
    loader = build(tiny_noise, batch_size, drop_last=drop_last)
    sizes = [batch_size] * full + [rest] * (rest > 0 and not drop_last)
    assert len(loader) == len(sizes)
    for _ in range(2):
        assert [len(images) for images, _ in loader] == sizes


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("ipc", [10**6, 10**12])
def test_memory_does_not_grow_with_ipc(tiny: Generator, ipc: int, shuffle: bool) -> None:
    loader = build(tiny, ipc=ipc, shuffle=shuffle)
    assert len(loader) == 3 * ipc // 5
    for _ in range(2):
        images, labels = next(iter(loader))
        assert images.shape == (5, tiny.spec.channels, tiny.spec.size, tiny.spec.size)
        assert labels.shape == (5,)
    state = loader.state_dict()
    state["batch"] = len(loader) - 1
    loader.load_state_dict(state)
    assert [len(images) for images, _ in loader] == [5]


# States ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("count", range(13))
def test_a_state_goes_on_after_the_last_batch_handed_out(tiny_noise: Generator, count: int, shuffle: bool) -> None:
    def play(loader: DistilledLoader) -> Iterable[Any]:
        return itertools.chain.from_iterable(iter(loader) for _ in range(3))

    loader = build(tiny_noise, shuffle=shuffle)
    batches = play(loader)
    for _ in range(count):
        next(batches)
    state = json.loads(json.dumps(loader.state_dict()))
    resumed = build(tiny_noise, shuffle=shuffle)
    next(iter(resumed))
    resumed.load_state_dict(state)
    assert resumed.epoch == count // 5
    rest = list(batches)
    assert len(rest) == 15 - count
    assert same(itertools.islice(play(resumed), len(rest)), rest)


def test_a_state_is_that_of_the_latest_iterator(tiny: Generator) -> None:
    loader = build(tiny)
    first = iter(loader)
    next(first)
    assert (loader.state_dict()["epoch"], loader.state_dict()["batch"]) == (0, 1)
    second = iter(loader)
    next(second)
    next(second)
    next(first)
    assert (loader.state_dict()["epoch"], loader.state_dict()["batch"]) == (1, 2)


def test_a_state_may_be_loaded_where_the_last_batch_is_dropped(tiny: Generator) -> None:
    loader = build(tiny)
    for _, _ in itertools.islice(loader, 4):
        state = loader.state_dict()
    other = build(tiny, drop_last=True)
    other.load_state_dict(state)
    assert other.epoch == 1
    assert len(list(other)) == 4


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"batch_size": 6}, "saved with batch_size=6, but here batch_size=5: build it with batch_size=6 to go on"),
        ({"ipc": 9}, "saved with ipc=9, but here ipc=8"),
        ({"seed": 1}, "saved with seed=1, but here seed=0"),
        ({"shuffle": False}, "saved with shuffle=False, but here shuffle=True"),
    ],
)
def test_a_state_of_other_settings_raises(tiny_noise: Generator, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        build(tiny_noise).load_state_dict(build(tiny_noise, **options).state_dict())


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        (
            {"extra": 1},
            ValueError,
            r"a state has the keys \['batch', 'epoch', 'settings'\], got \['batch', 'epoch', 'e",
        ),
        (
            {"settings": {"ipc": 8}},
            ValueError,
            r"a state's settings are \['batch_size', 'ipc', 'refresh', 'seed', 'shuffle'\]",
        ),
        ({"epoch": -1}, ValueError, "epoch must be at least 0, got -1"),
        ({"batch": -1}, ValueError, "batch must be at least 0, got -1"),
        ({"batch": 1.0}, TypeError, r"batch must be an int, got 1\.0"),
    ],
)
def test_what_is_no_state_raises_and_changes_nothing(
    tiny_noise: Generator, change: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    loader = build(tiny_noise)
    next(iter(loader))
    state = loader.state_dict()
    with pytest.raises(error, match=sentence):
        loader.load_state_dict({**state, **change})
    assert loader.state_dict() == state


# Arguments -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
        ({"batch_size": 8.0}, TypeError, r"batch_size must be an int, got 8\.0"),
        ({"batch_size": None}, TypeError, "batch_size must be an int, got None"),
        ({"ipc": 0}, ValueError, "ipc must be at least 1, got 0"),
        ({"ipc": True}, TypeError, "ipc must be an int, got True"),
        ({"seed": "0"}, TypeError, "seed must be an int, got '0'"),
        ({"dtype": torch.int64}, TypeError, r"dtype must be torch.uint8 or a floating-point type .*, got torch.int64"),
        ({"dtype": "float32"}, TypeError, r"dtype must be torch.uint8 or a floating-point type .*, got 'float32'"),
        ({"dtype": np.float32}, TypeError, "dtype must be torch.uint8 or a floating-point type"),
        ({"dtype": torch.complex64}, TypeError, "dtype must be torch.uint8 or a floating-point type"),
        ({"revision": "v1"}, ValueError, "revision='v1' selects a commit of a Hub repository, but source is a Gen"),
    ],
)
def test_bad_arguments_raise(
    tiny_noise: Generator, options: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        DistilledLoader(tiny_noise, **{"device": "cpu", **options})


def test_a_missing_gpu_raises(tiny_noise: Generator) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(RuntimeError, match="'cuda' was asked for, but torch finds no GPU here; pass device='cpu'"):
        DistilledLoader(tiny_noise, device="cuda")
    assert DistilledLoader(tiny_noise).device == torch.device("cpu")


def test_seeds_give_other_pictures(tiny_noise: Generator) -> None:
    seeds = [join(build(tiny_noise, seed=seed))[0] for seed in (0, 1, -1, 1 << 62)]
    assert len(torch.cat(seeds).flatten(1).unique(dim=0)) == 4 * COUNT


@pytest.mark.parametrize("form", ["generator", "folder", "text", "bundled", "hub"])
def test_a_source_is_any_name_of_a_generator(
    form: str, tiny_codes: Generator, codes_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def pull(repo_id: str, **options: Any) -> tuple[Path, str]:
        asked.append((repo_id, options))
        return codes_folder, "1234abcd"

    shutil.copytree(codes_folder, tmp_path / "bundle" / "pets")
    monkeypatch.setattr(names, "BUNDLED", tmp_path / "bundle")
    monkeypatch.setattr(names, "pull", pull)
    options = {"revision": "v1", "token": "secret"} if form == "hub" else {}
    sources = {"generator": tiny_codes, "folder": codes_folder, "text": str(codes_folder), "bundled": "pets"}
    loader = build(sources.get(form, "user/pets"), shuffle=False, **options)
    assert (loader.generator is tiny_codes) == (form == "generator")
    assert torch.equal(join(loader)[0], expect(tiny_codes, 0))
    assert asked == ([("user/pets", options)] if form == "hub" else [])
    assert loader.generator.revision == ("1234abcd" if form == "hub" else None)


def test_an_unknown_source_raises() -> None:
    with pytest.raises(FileNotFoundError, match=r"unknown source 'cifar1': a source is a folder .* or a Hub id like"):
        DistilledLoader("cifar1", device="cpu")


def test_repr_says_what_it_is(tiny_codes: Generator) -> None:
    assert repr(build(tiny_codes, seed=3, shuffle=False)) == (
        "DistilledLoader('tiny', batch_size=5, ipc=8, device='cpu', seed=3, shuffle=False, dtype=torch.uint8)"
    )


@pytest.mark.parametrize("kind", ["tiny_noise", "tiny_shaped", "tiny_codes"])
def test_batches_do_not_depend_on_how_many_are_made_at_once(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = request.getfixturevalue(kind)

    def batches(drop_last: bool, first: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        loader = DistilledLoader(generator, 7, ipc=12, device="cpu", drop_last=drop_last)
        state = loader.state_dict()
        loader.load_state_dict({**state, "batch": first})
        return list(loader)

    for drop_last, first in ((False, 0), (True, 0), (False, 3)):
        wanted = batches(drop_last, first)
        for planned, painted in ((1, 0), (14, 14), (30, 21), (30, 1000)):
            with monkeypatch.context() as patch:
                patch.setattr("dim_data.loading.batches.PLANNED", planned)
                patch.setattr("dim_data.loading.batches.PAINTED", {"cpu": painted})
                found = batches(drop_last, first)
            assert len(found) == len(wanted)
            for (x, y), (u, v) in zip(found, wanted, strict=True):
                assert torch.equal(x, u)
                assert torch.equal(y, v)
