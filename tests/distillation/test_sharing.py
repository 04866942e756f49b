"""``distill()`` by two processes of a gloo group: what one process would do, whoever is killed."""

from __future__ import annotations

import json
import os
import signal
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from conftest import SMALL_CLASSIFIERS, TINY, make_data
from dim_data.distillation import DistillConfig, StageStep, candidates, distill, reconstruction
from dim_data.distillation.pool import _share_members
from dim_data.distillation.reconstruction import Encoder
from dim_data.networks import CLASSIFIERS, Ranks, compute
from dim_data.protocol import StoppedError
from ranks import run_ranks

DATA = replace(make_data(per_class=12), spec=replace(make_data().spec, mirror=True))
SHORT: dict[str, Any] = {
    "options": {**TINY, "code_channels": 2, "latent_dim": 8},
    "pool": {"classifiers": ["convnet3", "resnet10"], "ages": [3, 5, 2], "augmentation": ["flip", "crop"]},
    "reconstruction": {"steps": 4, "batch_size": 8},
    "matching": {"steps": 6, "batch_size": 8},
    "selection": {"checkpoints": 3, "images": 12},
    "ema": 0.9,
    "holdout": 0.2,
}
CODES = DistillConfig.from_dict(
    {**SHORT, "labels": {"soft": True}, "refining": {"looks": 2, "batch_size": 5}, "max_codes": 30}
)
NOISE = DistillConfig.from_dict(
    {
        **SHORT,
        "source": "noise",
        "matching": {"steps": 1, "batch_size": 8},
        "selection": {"checkpoints": 1, "images": 12},
        "prior": {"epochs": 4, "batch_size": 16, "width": 16, "layers": 1, "looks": 2, "patience": 9},
    }
)
GAME = DistillConfig.from_dict(
    {
        **{name: SHORT[name] for name in ("selection", "ema", "holdout")},
        "architecture": "dim",
        "options": {"width": 4, "latent_dim": 16},
        "source": "noise",
        "first": "adversarial",
        "adversarial": {"steps": 2, "batch_size": 12, "discriminator_width": 8},
        "pool": {"classifiers": ["resnet10"], "ages": [0, 0], "aging_steps": 1, "augmentation": ["color", "cutout"]},
        "matching": {"steps": 3, "batch_size": 12},
    }
)
CONFIGS = {"codes": CODES, "noise": NOISE, "game": GAME}


def prepare(setting: Callable[[Any, str, Any], object] = setattr) -> None:
    """Small networks in float32: of one process and of two they then differ by rounding alone."""
    setting(compute, "_cpu_has_bfloat16", lambda: False)
    setting(candidates, "save_curves", lambda metrics, path: None)
    setting(reconstruction, "Encoder", lambda *shape: Encoder(*shape, width=8))
    CLASSIFIERS.update(SMALL_CLASSIFIERS)


@pytest.fixture(autouse=True)
def prepared(small_classifiers: None, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(monkeypatch.setattr)


Losses = dict[tuple[str, str], list[float]]


def losses_of(steps: list[StageStep]) -> Losses:
    found: Losses = defaultdict(list)
    for step in steps:
        for name, value in step.losses.items():
            found[step.stage, name].append(value)
    return {name: sorted(values) if name[0] == "pool" else values for name, values in found.items()}


def run(out: Path, config: DistillConfig, **options: Any) -> dict[str, Any]:
    """A run's losses, result and folder, in plain values."""
    steps: list[StageStep] = []
    result = distill(DATA, config=config, out=out, on_step=steps.append, device="cpu", **options)
    weights = {name: tensor.numpy() for name, tensor in result.state_dict().items()}
    return {"losses": losses_of(steps), "weights": weights, "files": sorted(path.name for path in out.iterdir())}


def said_by(out: Path, data: Any = DATA, config: DistillConfig = CODES, **options: Any) -> str:
    try:
        distill(data, config=config, out=out, device="cpu", **options)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def share(folder: Path) -> dict[str, Any]:
    """What each of two ranks sees of some runs, and of some that go wrong."""
    prepare()
    dist.init_process_group("gloo")
    here = Ranks.present().rank
    found: dict[str, Any] = {name: run(folder / name, config) for name, config in CONFIGS.items()}
    found["again"] = run(folder / "codes", CODES)["losses"]

    other = replace(CODES, seed=here)
    found["config"] = said_by(folder / "bad", config=other)
    images = DATA.images.clone()
    images[0, 0, 0, 0] += here
    found["data"] = said_by(folder / "bad", data=replace(DATA, images=images))
    found["batch"] = said_by(folder / "bad", config=replace(CODES, matching=replace(CODES.matching, batch_size=7)))
    found["missing"] = said_by(folder / "bad", data=DATA if here == 0 else folder / "nowhere.npz")
    found["left"] = [path.name for path in folder.glob("bad/*")]

    def broken(step: StageStep) -> None:
        if here == 1 and (step.stage, step.step) == ("matching", 2):
            raise OSError("lost the disk")

    found["broken"] = said_by(folder / "broken", on_step=broken)
    stops = [0]

    def should_stop() -> bool:
        stops[0] += 1
        return here == 1 and stops[0] == 4

    found["stopped"] = said_by(folder / "broken", should_stop=should_stop, overwrite=True)
    (folder / "full").mkdir(exist_ok=True)
    (folder / "full" / "file").write_text("")
    found["folder"] = said_by(folder / "full")
    found["resumed"] = run(folder / "broken", CODES)
    found["group"] = dist.is_initialized(), dist.get_world_size()
    return found


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("shared")
    return folder, run_ranks(share, 2, folder)


TOLERANCES = {"refining": 0.05, "prior": 0.02}
"""Of stages that begin with codes: what an encoder makes of an image may round to another one."""


@pytest.mark.parametrize("name", CONFIGS)
def test_the_losses_are_those_of_one_process(name: str, shared: Any, tmp_path: Path) -> None:
    _, ranks = shared
    alone = run(tmp_path / "alone", CONFIGS[name])
    for rank in ranks:
        assert rank[name]["losses"].keys() == alone["losses"].keys()
        assert rank[name]["files"] == alone["files"]
        for (stage, loss), values in alone["losses"].items():
            tolerance = TOLERANCES.get(stage, 1e-4)
            assert rank[name]["losses"][stage, loss] == pytest.approx(values, rel=tolerance, abs=1e-4), (stage, loss)


def test_ranks_end_with_the_same_weights(shared: Any) -> None:
    folder, (first, second) = shared
    for name in CONFIGS:
        for key, value in first[name]["weights"].items():
            assert (value == second[name]["weights"][key]).all(), key
        log = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in log if line["stage"] == "selection"] == (
            [1] if name == "noise" else [1, 2, 3] if name == "game" else [2, 4, 6]
        )
    assert first["again"] == second["again"] == {}, "a finished run is only loaded"


def test_what_is_not_the_same_on_all_ranks_is_named_on_each(shared: Any) -> None:
    _, ranks = shared
    for rank in ranks:
        assert rank["config"].startswith("ValueError: ranks share a run where all were given the same, but rank 1 ")
        assert "differs in config.seed (1 on rank 1, 0 on others)" in rank["config"]
        assert "but rank 1 differs in data ('" in rank["data"]
        assert rank["batch"] == (
            "ValueError: 7 images a step cannot be shared out equally to 2 ranks: let matching.batch_size be a "
            "multiple, such as --set matching.batch_size=8, or start another number of processes"
        )
        assert rank["left"] == []


def test_an_error_of_one_rank_is_every_ranks(shared: Any) -> None:
    _, (first, second) = shared
    assert second["missing"].startswith("FileNotFoundError: no data at")
    assert first["missing"] == f"RankError: rank 1: {second['missing']}"
    assert second["broken"] == "OSError: lost the disk"
    assert first["broken"] == "RankError: rank 1: OSError: lost the disk"
    assert first["folder"].startswith("FileExistsError: ")
    assert second["folder"] == f"RankError: rank 0: {first['folder']}"
    assert first["group"] == second["group"] == (True, 2)


def test_one_rank_that_is_asked_to_stop_stops_all_and_nothing_is_lost(shared: Any) -> None:
    _, ranks = shared
    for rank in ranks:
        assert rank["stopped"].startswith("StoppedError: stopped in stage 'pool', step 4 of 10; saved in ")
        resumed, whole = rank["resumed"]["losses"], rank["codes"]["losses"]
        assert len(resumed["pool", "cross_entropy"]) == 6
        for stage in ("reconstruction", "matching"):
            assert all(resumed[key] == whole[key] for key in whole if key[0] == stage)
        assert all((value == rank["codes"]["weights"][key]).all() for key, value in rank["resumed"]["weights"].items())


# Killed --------------------------------------------------------------------------------------------------


def be_killed(folder: Path, stage: str, step: int, who: int) -> None:
    prepare()
    dist.init_process_group("gloo")

    def kill(record: StageStep) -> None:
        if Ranks.present().rank == who and (record.stage, record.step) == (stage, step):
            os.kill(os.getpid(), signal.SIGKILL)

    distill(DATA, config=CODES, out=folder, on_step=kill, device="cpu", checkpoint_seconds=0)


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_whoever_is_killed_any_number_of_ranks_goes_on(shared: Any, tmp_path: Path) -> None:
    _, (whole, _) = shared
    for stage, step, who, count in (("pool", 6, 1, 2), ("matching", 3, 0, 2)):
        with pytest.raises(AssertionError, match=r"died|another rank has ended"):
            run_ranks(be_killed, count, tmp_path / "run", stage, step, who)
    found = run(tmp_path / "run", CODES)
    left = found["losses"]["matching", "pixels"]
    assert 3 <= len(left) <= 4, "of six steps two or three were done"
    assert left == pytest.approx(whole["codes"]["losses"]["matching", "pixels"][-len(left) :], rel=1e-4)
    assert ("pool", "cross_entropy") not in found["losses"]


def test_a_run_of_one_process_is_taken_up_by_two_in_the_middle_of_the_pool(tmp_path: Path, shared: Any) -> None:
    steps: list[StageStep] = []
    with pytest.raises(StoppedError):
        distill(DATA, config=CODES, out=tmp_path / "run", on_step=steps.append, should_stop=lambda: len(steps) == 4)
    first, second = run_ranks(take_up, 2, tmp_path / "run")
    assert first == second
    _, (whole, _) = shared
    pool = sorted([*losses_of(steps)["pool", "cross_entropy"], *first["pool", "cross_entropy"]])
    assert pool == pytest.approx(whole["codes"]["losses"]["pool", "cross_entropy"], rel=1e-5)
    assert first["matching", "pixels"] == pytest.approx(whole["codes"]["losses"]["matching", "pixels"], rel=1e-4)


def take_up(folder: Path) -> Losses:
    prepare()
    dist.init_process_group("gloo")
    return run(folder, CODES)["losses"]


def test_members_are_shared_out_by_how_long_they_take() -> None:
    assert _share_members([300, 1000, 3000], Ranks(0, 2)) == [1, 1, 0]
    assert _share_members([300, 1000, 3000], Ranks(0, 8)) == [2, 1, 0]
    assert _share_members([5, 5, 5, 5], Ranks(1, 2)) == [0, 1, 0, 1]
    assert _share_members([5, 5], Ranks()) == [0, 0]
