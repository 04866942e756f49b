"""Banks too large to be read: they are mapped, and nobody notices."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import pytest
import torch

from dim_data.format import WEIGHTS
from dim_data.generator import Generator, storing
from dim_data.loading import DistilledLoader


@pytest.fixture
def folder(tiny_codes: Generator, tmp_path: Path) -> Path:
    latents = tiny_codes.bank.unpack(tiny_codes.bank.codes)
    soft = torch.rand(120, 3, generator=torch.Generator().manual_seed(0)).softmax(1)
    return tiny_codes.store(latents, tiny_codes.bank.labels, soft).save_pretrained(tmp_path / "bank")


@pytest.fixture
def mapped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Generator:
    monkeypatch.setattr(storing, "MAP_ABOVE", 0)
    return Generator.from_pretrained(folder)


def places(tensor: torch.Tensor) -> str:
    """The file that a tensor lies in, as Linux says."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(number, 16) for number in line.split()[0].split("-"))
        if start <= tensor.data_ptr() < end:
            return line.split(maxsplit=5)[5] if len(line.split()) > 5 else ""
    return ""


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="asks Linux")
def test_large_banks_lie_in_the_file_and_small_ones_in_memory(
    folder: Path, mapped: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for tensor in (mapped.bank.codes, mapped.bank.soft):
        assert places(tensor) == str(folder / WEIGHTS)
    assert places(next(mapped.decoder.parameters())) != str(folder / WEIGHTS)
    monkeypatch.setattr(storing, "MAP_ABOVE", 64 << 20)
    assert places(Generator.from_pretrained(folder).bank.codes) != str(folder / WEIGHTS)


def test_a_mapped_bank_gives_the_same_batches(folder: Path, mapped: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storing, "MAP_ABOVE", 1 << 30)
    loaders = [DistilledLoader(g, 16, ipc=8, soft_labels=True) for g in (Generator.from_pretrained(folder), mapped)]
    for one, two in zip(*loaders, strict=True):
        assert torch.equal(one[0], two[0])
        assert torch.equal(one[1], two[1])


def test_the_file_may_be_replaced_or_removed(folder: Path, mapped: Generator, tmp_path: Path) -> None:
    rows = torch.arange(120)
    wanted = mapped.decode(rows)
    mapped.save_pretrained(folder)
    assert torch.equal(mapped.decode(rows), wanted)
    assert torch.equal(Generator.from_pretrained(folder).decode(rows), wanted)
    mapped.keep_codes(30).save_pretrained(folder)
    assert torch.equal(mapped.decode(rows), wanted)
    shutil.rmtree(folder)
    assert torch.equal(copy.deepcopy(mapped).decode(rows), wanted)


def test_what_is_changed_in_memory_stays_there(folder: Path, mapped: Generator) -> None:
    before = (folder / WEIGHTS).read_bytes()
    mapped.bank.codes[:] = 0
    assert not mapped.bank.codes.any()
    assert (folder / WEIGHTS).read_bytes() == before


def test_classes_of_rows_are_those_of_the_bank(tiny_codes: Generator) -> None:
    rows = torch.randperm(120)
    assert torch.equal(tiny_codes.bank.labels_of(rows), tiny_codes.bank.labels[rows])
