"""What two processes of a gloo group are handed out, with no framework between."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, DistributedSampler
from torchvision.transforms.functional import pil_to_tensor

from dim_data import DistilledDataset, DistilledLoader
from dim_data.loading import shares
from ranks import run_ranks

IPC = 8
Keys = list[tuple[int, bytes]]


def build(folder: Path, **options: Any) -> DistilledLoader:
    return DistilledLoader(folder, 4, **{"ipc": IPC, "device": "cpu", "dtype": torch.uint8, **options})


def values(batches: Any) -> Keys:
    pairs = itertools.chain.from_iterable(zip(*batch, strict=True) for batch in batches)
    return sorted((int(label), image.numpy().tobytes()) for image, label in pairs)


def complaint(loader: DistilledLoader) -> str:
    try:
        next(iter(loader))
    except ValueError as error:
        return str(error)
    return ""


def share_passes(folder: Path) -> dict[str, Any]:
    """What one of two ranks sees; the loader is made before the process group."""
    loader = build(folder)
    found: dict[str, Any] = {"length alone": len(loader)}
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    found["length"] = len(loader)
    found["passes"] = [values(loader) for _ in range(2)]

    shares.PATIENCE = 0.3
    looked_at = build(folder, seed=4)
    if rank == 0:
        next(iter(looked_at))
    dist.barrier()
    looked_at.set_epoch(0)
    found["after a look"] = values(looked_at)

    shares.PATIENCE = 5.0
    dist.barrier()
    found["seeds"] = complaint(build(folder, seed=20 + rank))
    dist.barrier()
    halfway = build(folder, seed=5)
    if rank == 1:
        halfway.load_state_dict({**halfway.state_dict(), "batch": 1})
    found["states"] = complaint(halfway)
    dist.barrier()
    found["uneven"] = complaint(build(folder, ipc=3))
    found["all"] = values(build(folder, rank=0, world_size=1))

    batches = iter(loader)
    found["begun"] = values([next(batches)])
    found["state"] = loader.state_dict()
    found["rest"] = values(batches)

    dataset = DistilledDataset(folder, ipc=IPC, transform=pil_to_tensor)
    sampler: DistributedSampler[int] = DistributedSampler(dataset)
    found["dataset"] = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        found["dataset"].append(values(DataLoader(dataset, 4, sampler=sampler)))
    return found


@pytest.fixture(scope="module")
def seen(tiny_noise: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tiny_noise.save_pretrained(tmp_path_factory.mktemp("noise"), dtype=torch.float32)
    return folder, run_ranks(share_passes, 2, folder)


def test_ranks_share_each_epoch(seen: Any) -> None:
    folder, ranks = seen
    alone = build(folder)
    assert [(rank["length alone"], rank["length"]) for rank in ranks] == [(6, 3)] * 2
    for passes in zip(*(rank["passes"] for rank in ranks), strict=True):
        assert [len(part) for part in passes] == [12, 12]
        assert sorted(itertools.chain(*passes)) == values(alone)


def test_a_rank_may_look_at_a_batch_alone(seen: Any) -> None:
    folder, ranks = seen
    assert sorted(itertools.chain(*(rank["after a look"] for rank in ranks))) == values(build(folder, seed=4))


def test_a_loader_of_its_own_has_everything(seen: Any) -> None:
    folder, ranks = seen
    assert [rank["all"] for rank in ranks] == [values(build(folder))] * 2


def test_ranks_that_were_given_other_seeds_or_states_say_so(seen: Any) -> None:
    _, (first, second) = seen
    assert "rank 1 has seed=21 and rank 0 has seed=20: give every rank the same" in first["seeds"]
    assert "rank 0 has seed=20 and rank 1 has seed=21: give every rank the same" in second["seeds"]
    assert "rank 1 has place=8 and rank 0 has place=0: give every rank the same" in first["states"]
    assert "rank 0 has place=0 and rank 1 has place=8: give every rank the same" in second["states"]


def test_an_epoch_that_cannot_be_shared_out_is_refused_on_every_rank(seen: Any) -> None:
    for rank in seen[1]:
        assert "9 pictures cannot be shared out equally to 2 ranks: choose ipc" in rank["uneven"]


def test_one_process_goes_on_where_two_were(seen: Any) -> None:
    folder, ranks = seen
    assert ranks[0]["state"] == ranks[1]["state"]
    resumed = build(folder)
    resumed.load_state_dict(ranks[0]["state"])
    assert resumed.epoch == 2
    assert values(resumed) == sorted(itertools.chain(*(rank["rest"] for rank in ranks)))
    whole = build(folder)
    whole.set_epoch(2)
    assert values(whole) == sorted(itertools.chain(*(rank[part] for rank in ranks for part in ("begun", "rest"))))


def test_a_dataset_is_new_in_each_pass_of_a_distributed_sampler(seen: Any) -> None:
    folder, ranks = seen
    whole = build(folder)
    for passes in zip(*(rank["dataset"] for rank in ranks), strict=True):
        assert sorted(itertools.chain(*passes)) == values(whole)
