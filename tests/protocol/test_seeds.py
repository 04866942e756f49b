"""``evaluate()`` by two ranks: each seed is trained once, and any number of ranks goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from conftest import SMALL_CLASSIFIERS, make_data
from dim_data.networks import CLASSIFIERS, Ranks, work_queue
from dim_data.protocol import ClassifierStep, StoppedError, evaluate
from ranks import run_ranks

TRAIN, TEST = make_data(3, 32), make_data(3, 32, seed=1)
SETTINGS: dict[str, Any] = {"ipc": 4, "epochs": 5, "seeds": (3, 4, 5), "device": "cpu"}
pytestmark = pytest.mark.usefixtures("small_classifiers")


def measure(folder: Path) -> dict[str, Any]:
    """What one of two ranks sees."""
    CLASSIFIERS.update(SMALL_CLASSIFIERS)
    dist.init_process_group("gloo")
    ranks, found = Ranks.present(), {}
    steps: list[ClassifierStep] = []
    path = folder / "kept.pt"

    def stops() -> bool:
        return len(steps) == 2

    try:  # a file of one process is there, which had begun the first seed
        options: dict[str, Any] = {"checkpoint": path, "should_stop": stops, "on_step": steps.append}
        evaluate(TRAIN, TEST, **SETTINGS, **options, checkpoint_seconds=0)
    except StoppedError as error:
        found["stopped"] = str(error)
    ranks.barrier()
    found["files"] = sorted(file.name for file in folder.iterdir())
    ranks.barrier()
    again: list[ClassifierStep] = []
    result = evaluate(TRAIN, TEST, **SETTINGS, checkpoint=path, on_step=again.append)
    found["steps"] = [(step.seed, step.step) for step in [*steps, *again]]
    found["accuracies"] = result.accuracies
    ranks.barrier()
    found["left"] = [file.name for file in folder.iterdir()]

    work_queue.PATIENCE = 0.5
    alone: list[int] = []
    if ranks.first:
        lone = evaluate(TRAIN, TEST, **SETTINGS, on_step=lambda step: alone.append(step.seed))
        found["lone"] = lone.accuracies, sorted(set(alone))
        told = evaluate(TRAIN, TEST, **SETTINGS, alone=True)
        found["told"] = told.accuracies
    ranks.barrier()
    work_queue.PATIENCE = 3.0  # all of it is waited here, and a busy machine may hold one of them up
    try:
        evaluate(TRAIN, TEST, **{**SETTINGS, "ipc": 4 + ranks.rank})
    except ValueError as error:
        found["other"] = str(error)
    ranks.barrier()
    work_queue.PATIENCE = 60.0

    store = dist.distributed_c10d._get_default_store()

    def broken(step: ClassifierStep) -> None:
        if not ranks.first:
            store.set("the second has a seed", "yes")
            raise OSError("lost the disk")
        store.wait(["the second has a seed"])  # or the first might take all three

    try:
        evaluate(TEST, TEST, **SETTINGS, on_step=broken)
    except Exception as error:
        found["broken"] = f"{type(error).__name__}: {error}"
    found["in step"] = ranks.each("here", ranks.rank)
    return found


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        for name, builder in SMALL_CLASSIFIERS.items():
            patch.setitem(CLASSIFIERS, name, builder)
        path, steps = tmp_path_factory.mktemp("seeds") / "kept.pt", []
        options: dict[str, Any] = {"on_step": steps.append, "should_stop": lambda: len(steps) == 1}
        with pytest.raises(StoppedError):
            evaluate(TRAIN, TEST, **SETTINGS, checkpoint=path, **options)
        alone = evaluate(TRAIN, TEST, **SETTINGS)
    return alone, run_ranks(measure, 2, path.parent)


def test_ranks_share_the_seeds_and_go_on_with_what_one_process_began(seen: Any) -> None:
    alone, ranks = seen
    assert [rank["accuracies"] for rank in ranks] == [alone.accuracies] * 2
    trained = sorted(step for rank in ranks for step in rank["steps"])
    assert trained == sorted({(seed, step) for seed in (3, 4, 5) for step in range(1, 6)} - {(3, 1)}), "each once"
    assert all(rank["steps"] for rank in ranks)


def test_each_rank_keeps_what_it_has_done(seen: Any) -> None:
    _, ranks = seen
    assert [rank["files"] for rank in ranks] == [["kept.pt", "kept.pt.1"]] * 2
    assert [rank["left"] for rank in ranks] == [[], []]
    assert "stopped in seed 3, step 3 of 5; saved in " in ranks[0]["stopped"]


def test_a_lone_rank_measures_all(seen: Any) -> None:
    alone, (first, _) = seen
    assert first["lone"] == (alone.accuracies, [3, 4, 5])
    assert first["told"] == alone.accuracies


def test_ranks_that_ask_for_different_evaluations_say_so(seen: Any) -> None:
    _, (first, second) = seen
    assert "but rank 1 asks for another: it differs in ipc (5 there, 4 here). Give every rank the" in first["other"]
    assert "but rank 0 asks for another: it differs in ipc (4 there, 5 here)" in second["other"]


def test_an_error_of_one_rank_is_every_ranks(seen: Any) -> None:
    _, (first, second) = seen
    assert second["broken"] == "OSError: lost the disk"
    assert first["broken"] == "RankError: rank 1: OSError: lost the disk"
    assert first["in step"] == second["in step"] == [0, 1]


def test_what_two_ranks_began_one_process_ends(tmp_path: Path) -> None:
    path, whole = tmp_path / "kept.pt", evaluate(TRAIN, TEST, **SETTINGS)
    for place, name in ((0, "kept.pt"), (2, "kept.pt.1")):  # as two ranks leave them
        steps: list[ClassifierStep] = []
        options: dict[str, Any] = {"on_step": steps.append, "should_stop": lambda: len(steps) == 3}  # noqa: B023
        with pytest.raises(StoppedError):
            evaluate(TRAIN, TEST, **{**SETTINGS, "seeds": (SETTINGS["seeds"][place],)}, checkpoint=path, **options)
        content = torch.load(path, weights_only=True)
        path.unlink()
        identity = {**content["identity"], "seeds": list(SETTINGS["seeds"])}
        torch.save({**content, "identity": identity, "place": place, "accuracies": [None] * 3}, tmp_path / f".{name}")
    for name in ("kept.pt", "kept.pt.1"):
        (tmp_path / f".{name}").rename(tmp_path / name)
    steps = []
    result = evaluate(TRAIN, TEST, **SETTINGS, checkpoint=path, on_step=steps.append)
    assert result.accuracies == whole.accuracies
    assert [(s.seed, s.step) for s in steps] == [(3, 4), (3, 5), *((4, step) for step in range(1, 6)), (5, 4), (5, 5)]
    assert list(tmp_path.iterdir()) == []
