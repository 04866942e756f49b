"""What two processes of a gloo group tell each other, and how an error of one ends both."""

from __future__ import annotations

import copy
import math
import time
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from dim_data.networks import work_queue
from dim_data.networks.meeting import RankError
from dim_data.networks.norms import share_norms
from dim_data.networks.ranks import ALONE, Ranks
from dim_data.networks.work_queue import WorkQueue
from ranks import run_ranks


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(20, 4), nn.BatchNorm1d(4, affine=False)
    )


def learn(model: nn.Module, ranks: Ranks) -> tuple[list[float], nn.Module]:
    """Some steps of which each rank has a part."""
    share_norms(model, ranks)
    optimizer, rng, losses = torch.optim.SGD(model.parameters(), 0.5), torch.Generator().manual_seed(1), []
    for _ in range(3):
        images, wanted = torch.randn(8, 3, 4, 4, generator=rng), torch.rand(8, 4, generator=rng)
        said = model(ranks.portion.of(images))
        scale = ranks.mean(said.square().mean(0))
        loss = ((said - ranks.portion.of(wanted)).square() / (1 + scale)).mean()
        optimizer.zero_grad()
        loss.backward()
        losses += ranks.average(optimizer, loss)
        optimizer.step()
    return losses, model


def said_by(work: Any) -> str:
    try:
        with Ranks.present().together():
            work()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def fail(rank: int, here: int) -> None:
    if rank == here:
        raise ValueError(f"no such thing on {rank}")


def meet() -> dict[str, Any]:
    """What each of two ranks finds."""
    dist.init_process_group("gloo")
    ranks, found = Ranks.present(), {}
    here = ranks.rank
    parts = [torch.full((n,), n) for n in (1, 2, 3)]
    found["each"] = ranks.each("each", here + 0.5)
    found["map"] = [x.tolist() for x in ranks.map(lambda x: x * 2, parts)]
    found["gathered"] = [None if x is None else x.tolist() for x in ranks.gather(parts[0] if here else None)]
    found["odd"] = ranks.odd_one({"lr": here}), ranks.odd_one({"lr": 1})
    here_and_there = [torch.full((2, 2), here), torch.tensor(here, dtype=torch.uint8)]
    ranks.broadcast(here_and_there, source=1)
    found["spread"] = [x.tolist() for x in here_and_there]
    found["large"] = ranks.mean(torch.full((1000,), float(here)))[999].item()

    losses, model = learn(network(), ranks)
    alone, wanted = learn(network(), ALONE)
    found["losses"] = max(abs(a - b) for a, b in zip(losses, alone, strict=True))
    pairs = zip(model.state_dict().values(), wanted.state_dict().values(), strict=True)
    found["weights"] = max((a - b).abs().max().item() for a, b in pairs)
    found["names"] = list(model.state_dict()) == list(wanted.state_dict())
    model.eval(), wanted.eval()
    images = torch.rand(4, 3, 4, 4)
    found["tested"] = (model(images) - wanted(images)).abs().max().item()
    copied = copy.deepcopy(model)
    found["copied"] = torch.equal(copied(images), model(images))

    found["error in a sum"] = said_by(lambda: (fail(1, here), ranks.each("sum", 1)))
    found["error in a wait"] = said_by(lambda: (fail(0, here), ranks.barrier()))
    found["error at the end"] = said_by(lambda: (time.sleep(0.2 * here), fail(1, here)))
    found["errors on both"] = said_by(lambda: fail(here, here))
    found["out of step"] = said_by(lambda: ranks.each(("one", "another")[here], 1))
    found["after errors"] = ranks.each("each", here + 1)

    work_queue.PATIENCE = 60.0  # a busy machine may hold one of them up
    queue, done = WorkQueue(ranks, "counting", {"of": "sheep"}), []
    for piece in "abc":
        if queue.take(piece):
            time.sleep(0.1)
            done.append(piece)
            queue.report(piece, here)
    found["pieces"], found["results"] = done, [queue.result(piece) in (0, 1) for piece in "abc"]
    work_queue.PATIENCE = 3.0  # all of it is waited
    found["other"] = WorkQueue(ranks, "counting", {"of": ("goats", "cows")[here]}).other
    ranks.barrier()
    work_queue.PATIENCE = 60.0
    failing = WorkQueue(ranks, "counting", {"of": "bees"})
    if here:
        failing.take("a")
        failing.fail(ValueError("stung"))
    ranks.barrier()
    try:
        found["failed"] = failing.take("a") or failing.result("a")
    except RankError as error:
        found["failed"] = str(error)
    ranks.barrier()
    if not here:
        work_queue.PATIENCE = 0.3
        lone = WorkQueue(ranks, "counting", {"of": "cats"})
        found["lone"] = lone.take("a"), lone.take("b")
    return found


@pytest.fixture(scope="module")
def found() -> list[dict[str, Any]]:
    return run_ranks(meet, 2)


def test_ranks_tell_each_other(found: list[dict[str, Any]]) -> None:
    for rank in found:
        assert rank["each"] == [0.5, 1.5]
        assert rank["map"] == [[2], [4, 4], [6, 6, 6]]
        assert rank["gathered"] == [None, [1]]
        assert rank["odd"] == ((1, {"lr": 1}, {"lr": 0}), None)
        assert rank["spread"] == [[[1, 1], [1, 1]], 1]
        assert rank["large"] == 0.5


def test_a_batch_in_parts_teaches_what_the_whole_does(found: list[dict[str, Any]]) -> None:
    for rank in found:
        assert rank["losses"] < 1e-6
        assert rank["weights"] < 1e-5
        assert rank["tested"] < 1e-5
        assert rank["names"]
        assert rank["copied"]


def test_an_error_of_one_rank_ends_all_with_its_message(found: list[dict[str, Any]]) -> None:
    first, second = found
    theirs, own = "RankError: rank {}: ValueError: no such thing on {}", "ValueError: no such thing on {}"
    for case, rank in (("error in a sum", 1), ("error in a wait", 0), ("error at the end", 1)):
        assert found[rank][case] == own.format(rank)
        assert found[1 - rank][case] == theirs.format(rank, rank)
    assert [rank["errors on both"] for rank in found] == [own.format(0), own.format(1)]
    assert first["out of step"] == "RankError: ranks are out of step: rank 0 has come to 'one', and others have not"
    assert "rank 1 has come to 'another'" in second["out of step"]
    assert [rank["after errors"] for rank in found] == [[1, 2], [1, 2]], "the group can be used as before"


def test_a_queue_is_shared_by_those_who_come(found: list[dict[str, Any]]) -> None:
    first, second = found
    assert sorted(first["pieces"] + second["pieces"]) == ["a", "b", "c"]
    assert first["pieces"]
    assert second["pieces"]
    assert all(first["results"] + second["results"])
    assert first["other"] == (1, {"of": "cows"})
    assert second["other"] == (0, {"of": "goats"})
    assert first["failed"] == "rank 1: ValueError: stung"
    assert first["lone"] == (True, True)


def test_alone_nothing_is_sent() -> None:
    assert Ranks.present() == ALONE
    values = torch.rand(3, requires_grad=True)
    assert ALONE.mean(values) is values
    assert ALONE.each("x", 2) == [2]
    assert ALONE.gather(values) == [values]
    assert ALONE.chunks(10, 3) == [slice(0, 10)]
    assert [(c.start, c.stop) for c in Ranks(0, 3).chunks(10, 2)] == [(0, 4), (4, 8), (8, 10)]
    norm = nn.BatchNorm2d(2)
    share_norms(norm, ALONE)
    assert type(norm) is nn.BatchNorm2d
    with pytest.raises(ValueError, match="here"), ALONE.together():
        raise ValueError("here")
    assert ALONE.bytes_sent == 0


def test_a_number_that_is_none_stays_with_its_rank() -> None:
    class Said(Ranks):
        def add(self, place: str, *values: float) -> list[float]:
            return list(values)

    one, other = Said(0, 2).each("place", math.inf), Said(1, 2).each("place", math.nan)
    assert one == [math.inf, 0.0]
    assert other[0] == 0.0
    assert math.isnan(other[1])
