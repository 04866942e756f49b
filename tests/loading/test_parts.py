"""The parts that split() makes of a set share no picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from conftest import make_generator
from dim_data.format import GeneratorConfig
from dim_data.generator.model import Generator
from dim_data.loading.dataset import DistilledDataset


def to_bytes(image: Any) -> bytes:
    return image.tobytes()


def build(source: Generator, ipc: int = 10, **options: Any) -> DistilledDataset:
    return DistilledDataset(source, ipc=ipc, transform=to_bytes, **options)


def one_pass(dataset: Any) -> list[bytes]:
    return [image for batch in DataLoader(dataset, 7, collate_fn=list) for image, _ in batch]


@pytest.fixture(params=["noise", "codes", "shaped"])
def tiny(request: pytest.FixtureRequest) -> Generator:
    return request.getfixturevalue(f"tiny_{request.param}")


@pytest.mark.parametrize(
    ("ipc", "holdout", "seed"), [(10, 0.1, 0), (10, 0.34, -7), (40, 0.5, 0), (100, 0.1, 3), (2, 0.5, 0)]
)
def test_the_parts_of_a_split_share_no_picture(tiny: Generator, ipc: int, holdout: float, seed: int) -> None:
    """However long the codes have run out."""
    train, validation = build(tiny, ipc, seed=seed).split(holdout)
    held = round(ipc * holdout)
    assert len(train) == 3 * (ipc - held)
    shown, kept = set(), one_pass(validation)
    for _ in range(8):
        shown |= set(one_pass(train))
        assert one_pass(validation) == kept
    assert not shown & set(kept)
    assert len(set(kept)) == len(kept) == len(validation)
    if tiny.source.finite:
        assert len(validation) == 3 * min(held, 40 * held // ipc)
        if 8 * (ipc - held) >= 40:
            everything = {image.permute(1, 2, 0).numpy().tobytes() for image in tiny.decode(torch.arange(120))}
            assert shown <= everything
            assert len(shown) == 120 - 3 * max(1, min(held, 40 * held // ipc))
    else:
        assert len(validation) == 3 * held
        assert len(shown) == 8 * len(train)


@pytest.mark.parametrize("seed", [0, 2**63, -1])
def test_a_part_can_be_parted_again(tiny: Generator, seed: int) -> None:
    """Into what to train on, to validate and to test on, whichever part it is; a split made again is the same."""
    whole = build(tiny, 12, seed=seed)
    train, held = whole.split(0.5)
    kept, other = held.split(0.5)
    less, more = train.split(0.5)
    assert one_pass(whole.split(0.5)[1]) == one_pass(held)
    parts = [one_pass(part) for part in (kept, other, more)] + [[x for _ in range(8) for x in one_pass(less)]]
    assert len(parts[0]) == len(parts[1]) == len(parts[2]) == 9
    shown = [image for part in parts for image in set(part)]
    assert len(shown) == len(set(shown))


def test_the_parts_are_sets_like_the_whole(tiny_codes: Generator) -> None:
    class Own(DistilledDataset):
        extra = "kept"

    dataset = Own(tiny_codes, ipc=10, transform=to_bytes, cache=True)
    dataset.note = [1]
    dataset.set_epoch(3)
    train, validation = dataset.split()
    for part in (train, validation):
        assert type(part) is Own
        assert part.note is dataset.note
        assert len(one_pass(part)) == len(part)
        assert [label for _, label in part.read(range(3))] == [0, 1, 2]
        assert part.targets == [index % 3 for index in range(len(part))]
        assert type(part._painter) is type(dataset._painter)
    assert train.epoch == 1, "neither pinned nor in step with the whole"
    assert dataset.epoch == 3
    validation.transform = None
    assert train.transform is to_bytes
    assert validation.fixed
    assert build(tiny_codes, fixed=True).split()[0].fixed


def test_soft_labels_go_with_their_pictures(tiny_codes: Generator) -> None:
    bank = tiny_codes.bank
    marks = torch.arange(120.0).div(120)[:, None] * torch.tensor([1.0, -1.0, 0.0]) + torch.tensor([0.0, 1.0, 0.0])
    soft = tiny_codes.store(bank.unpack(bank.codes), bank.labels, marks)
    known = {image.numpy().tobytes(): mark for image, mark in zip(soft.decode(torch.arange(120)), marks, strict=True)}
    for part in DistilledDataset(soft, ipc=10, soft_labels=True).split(0.2):
        for image, said in part.read(range(len(part))):
            torch.testing.assert_close(said, known[np.array(image).transpose(2, 0, 1).tobytes()], atol=0.01, rtol=0)


@pytest.mark.parametrize("holdout", [0.0, 1.0, 1.5, -0.1, 1, True, None, float("nan"), 0.99])
def test_what_is_no_share_is_refused(tiny_noise: Generator, holdout: Any) -> None:
    with pytest.raises(
        ValueError, match=rf"holdout={holdout} of ipc=10 is no parting: a share of each class in \(0, 1\)"
    ):
        build(tiny_noise).split(holdout)


def test_a_class_of_one_code_is_not_parted(tiny_codes: Generator) -> None:
    with pytest.raises(ValueError, match="class 'class0' has a single code, which cannot be parted"):
        build(tiny_codes.keep_codes(3)).split()


@pytest.mark.parametrize("change", ["data", "edit", "targets"])
def test_a_changed_set_is_not_parted(tiny_codes: Generator, change: str) -> None:
    dataset = build(tiny_codes)
    if change == "data":
        dataset.data = dataset.data.copy()
    elif change == "edit":
        dataset.data[0] = 0
    else:
        dataset.targets[0] = 1
    with pytest.raises(ValueError, match=r"split first and change the parts, or use torch.utils.data.random_split"):
        dataset.split()
    dataset = build(tiny_codes)
    assert len(dataset.targets) == len(dataset.data), "looked at, not changed"
    assert len(dataset.split()) == 2


def test_codes_of_unequal_number_are_parted_by_class(tiny_codes: Generator) -> None:
    bank = tiny_codes.bank
    keep = torch.cat([torch.arange(2), torch.arange(40, 50), torch.arange(80, 120)])
    few = tiny_codes.keep_rows(keep)
    assert few.bank.counts.tolist() == [2, 10, 40]
    train, validation = build(few, ipc=10).split(0.2)
    assert train.generator.bank.counts.tolist() == [1, 8, 38]
    assert validation.generator.bank.counts.tolist() == [1, 2, 2]
    assert len(validation) == 3
    assert torch.equal(few.bank.codes, bank.codes[keep])
    with pytest.raises(ValueError, match="has a bank of them; this one draws noise"):
        make_generator(GeneratorConfig(few.spec, "compact", "noise", {**few.config.options})).keep_rows(keep)


def test_a_share_may_be_a_number_of_numpys(tiny_noise: Generator) -> None:
    train, validation = build(tiny_noise).split(np.float32(0.2))
    assert (len(train), len(validation)) == (8 * 3, 2 * 3)
