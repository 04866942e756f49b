"""``distill()`` end to end on tiny data; ``python tests/test_distillation.py NAME OUT`` is a run to be killed."""

from __future__ import annotations

import errno
import functools
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import SMALL_CLASSIFIERS, TINY, make_data, make_spec
from dim_data.distillation import candidates, reconstruction, runs, stages
from dim_data.distillation.loops import StageStep
from dim_data.distillation.pictures import save_curves
from dim_data.distillation.presets import DistillConfig
from dim_data.distillation.reconstruction import Encoder
from dim_data.distillation.runs import DivergenceError
from dim_data.distillation.stages import distill
from dim_data.generator.model import Generator
from dim_data.images.real import LabelledImages
from dim_data.networks.classifiers import CLASSIFIERS
from dim_data.protocol.states import LoopState, StoppedError

pytestmark = pytest.mark.usefixtures("small_nets", "no_curves")

DATA = make_data(per_class=12)
OPTIONS = {**TINY, "code_channels": 2, "latent_dim": 8}
TINY_RUN: dict[str, Any] = {
    "options": OPTIONS,
    "pool": {"classifiers": ("convnet3", "resnet10"), "ages": (6, 3)},
    "matching": {"steps": 12, "batch_size": 4},
    "selection": {"checkpoints": 3, "images": 12},
    "ema": 0.9,
    "holdout": 0.2,
}
PAIRED: dict[str, Any] = {"reconstruction": {"steps": 12, "batch_size": 4}}
GAME: dict[str, Any] = {
    "first": "adversarial",
    "source": "noise",
    "adversarial": {"steps": 12, "batch_size": 4, "lr": 2e-3, "discriminator_width": 8},
    "pool": {"ages": (0, 0), "lifetime": 4, "aging_steps": 2, "augmentation": ("color", "crop", "cutout")},
}
CHANGES: dict[str, dict[str, Any]] = {
    "codes": {**PAIRED, "source": "codes"},
    "refined": {**PAIRED, "source": "codes", "refining": {"looks": 3, "batch_size": 2}},
    "noise": {**PAIRED, "source": "noise", "prior": {"epochs": 8, "batch_size": 16, "width": 16, "layers": 1}},
    "game": GAME,
    "paper": {**GAME, "architecture": "dim", "options": {"width": 4, "latent_dim": 16}},
}
ONE_STEP: dict[str, Any] = {"reconstruction": {"steps": 1}, "matching": {"steps": 1}, "selection": {"checkpoints": 1}}
STAGES = {
    "codes": ["pool", "reconstruction", "matching"],
    "refined": ["pool", "reconstruction", "matching", "refining"],
    "noise": ["pool", "reconstruction", "matching", "prior"],
    "game": ["adversarial", "matching"],
    "paper": ["adversarial", "matching"],
}


def shrink() -> None:
    """Exchange the nets that a config cannot make small."""
    CLASSIFIERS.update(SMALL_CLASSIFIERS)
    reconstruction.Encoder = functools.partial(Encoder, width=8)


@pytest.fixture
def small_nets(small_classifiers: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconstruction, "Encoder", Encoder)
    shrink()


@pytest.fixture
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing them takes longer than the run."""
    monkeypatch.setattr(candidates, "save_curves", lambda metrics, path: None)


@pytest.fixture
def curves(no_curves: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "save_curves", save_curves)


def settings(name: str, **changes: Any) -> DistillConfig:
    """The run of that name, with changes: of a stage's configuration, those fields alone that are named."""
    values = dict(TINY_RUN)
    for more in (CHANGES[name], changes):
        for key, value in more.items():
            values[key] = {**values.get(key, {}), **value} if isinstance(value, dict) and key != "options" else value
    return DistillConfig.from_dict(values)


def lines(out: Path) -> list[dict[str, Any]]:
    """The log without the times in it."""
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in record.items() if k != "seconds"} for record in records]


def facts(out: Path) -> dict[str, Any]:
    return json.loads((out / "generator" / "training_config.json").read_text())


def assert_same_run(one: Path, two: Path) -> None:
    """Two runs that ended alike, to the bit."""
    for name in ("generator", "before_matching"):
        first, second = (out / name / "model.safetensors" for out in (one, two))
        assert first.read_bytes() == second.read_bytes()
        assert (first.parent / "config.json").read_bytes() == (second.parent / "config.json").read_bytes()
    assert (one / "samples.png").read_bytes() == (two / "samples.png").read_bytes()
    assert lines(one) == lines(two)
    keep = {"config", "selection", "chosen_step", "images_shown", "images_shown_to_pool"}
    assert [{k: facts(out)[k] for k in keep} for out in (one,)] == [{k: facts(out)[k] for k in keep} for out in (two,)]
    assert not list(one.rglob("*.tmp"))


Unbroken = Callable[[str], Path]


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Unbroken:
    """The folder of a run that nothing interrupted."""

    @functools.cache
    def run(name: str) -> Path:
        out = tmp_path_factory.mktemp("unbroken") / name
        distill(DATA, config=settings(name), out=out)
        return out

    return run


# A run as it should be -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CHANGES)
def test_a_run_end_to_end(name: str, tmp_path: Path, device: torch.device) -> None:
    out, steps, config = tmp_path / "new" / "run", [], settings(name)
    result = distill(DATA, config=config, out=str(out), on_step=steps.append, device=device)

    files = {"before_matching", "checkpoint.pt", "generator", "metrics.jsonl", "run.json", "samples.png"}
    assert {path.name for path in out.iterdir()} == files
    made = {path.name for path in (out / "generator").iterdir()}
    assert made >= {"config.json", "model.safetensors", "training_config.json"}
    assert facts(out)["data"] == DATA.fingerprint()

    assert not result.training
    assert not any(p.requires_grad for p in result.parameters())
    labels, serials = torch.arange(12) % 3, torch.arange(12) // 3
    pictures = result.synthesize(labels, serials)
    assert pictures.shape == (12, 1, 28, 28)
    saved = Generator.from_pretrained(out / "generator", device=device)
    assert saved.spec == DATA.spec
    assert torch.equal(saved.synthesize(labels, serials), pictures)
    earlier = Generator.from_pretrained(out / "before_matching", device=device)
    assert not torch.equal(earlier.synthesize(labels, serials), pictures)
    if name == "codes":
        assert result.bank.counts.tolist() == [12, 12, 12]
        assert earlier.bank.counts.tolist() == [10, 10, 10]

    lengths = dict.fromkeys(("reconstruction", "adversarial", "matching"), 12)
    lengths |= {"pool": sum(config.pool.ages), "refining": 18, "prior": 15}
    wanted = [(stage, step) for stage in STAGES[name] for step in range(1, lengths[stage] + 1)]
    assert [(s.stage, s.step) for s in steps] == wanted
    log = lines(out)
    assert [record["stage"] for record in log if record["stage"] != "selection"] == [
        stage
        for stage in STAGES[name]
        for step in range(1, lengths[stage] + 1)
        if step % 10 == 0 or step == lengths[stage]
    ]
    scores = [(r["step"], r["accuracy"]) for r in log if r["stage"] == "selection"]
    assert [step for step, _ in scores] == [4, 8, 12]
    best = max(accuracy for _, accuracy in scores)

    described = facts(out)
    assert DistillConfig.from_dict(described["config"]) == config
    assert described["chosen_step"] == next(step for step, accuracy in scores if accuracy == best)
    assert [(s["step"], s["accuracy"]) for s in described["selection"]] == scores
    assert described["images_shown"] == 12 * 4 + 12 * 4
    assert described["images_shown_to_pool"] == (12 * 2 * 4 if "pool" not in STAGES[name] else 9 * 50)

    with Image.open(out / "samples.png") as picture:
        assert picture.size == ((10 * 30 - 2) * 2, (3 * 30 - 2) * 2)


@pytest.mark.usefixtures("curves")
def test_the_library_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: Any) -> None:
    for name in ("codes", "game"):
        distill(DATA, config=settings(name), out=tmp_path / name)
        with Image.open(tmp_path / name / "curves.png") as picture:
            assert picture.width > picture.height
    assert capfd.readouterr() == ("", "")
    assert [str(w.message) for w in recwarn] == []


def test_a_seed_decides_everything(unbroken: Unbroken, tmp_path: Path) -> None:
    distill(DATA, config=settings("codes", seed=1), out=tmp_path / "other")
    torch.rand(5)
    distill(DATA, config=settings("codes"), out=tmp_path / "same")
    assert_same_run(tmp_path / "same", unbroken("codes"))
    weights = [out / "generator" / "model.safetensors" for out in (tmp_path / "other", unbroken("codes"))]
    assert weights[0].read_bytes() != weights[1].read_bytes()


def test_without_matching_the_first_stage_is_the_result(tmp_path: Path) -> None:
    steps: list[StageStep] = []
    config = settings("codes", matching={"steps": 0}, holdout=0.0)
    distill(DATA, config=config, out=tmp_path / "run", on_step=steps.append)
    assert {s.stage for s in steps} == {"reconstruction"}
    first, second = (tmp_path / "run" / name / "model.safetensors" for name in ("generator", "before_matching"))
    assert first.read_bytes() == second.read_bytes()
    assert facts(tmp_path / "run")["images_shown_to_pool"] == 0


def test_settings_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "PRESETS", {"default": settings("codes"), "other": settings("noise")})
    assert distill(DATA, out=tmp_path / "a").config.source == "codes"
    assert distill(DATA, config="other", out=tmp_path / "b").config.source == "noise"


def test_mirrored_digits_are_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[str, ...]] = []
    for module in ("reconstruction", "pool", "matching"):
        target = f"dim_data.distillation.{module}.augment"
        monkeypatch.setattr(target, lambda images, names, *_: shown.append(names) or images)
    config = settings(
        "codes", reconstruction={"steps": 1}, matching={"steps": 1}, pool={"classifiers": ("convnet3",), "ages": (1,)}
    )
    assert config.augmentation == config.pool.augmentation == ("flip",)
    distill(DATA, config=config, out=tmp_path / "digits")
    assert set(shown) == {()}
    distill(replace(DATA, spec=replace(DATA.spec, mirror=True)), config=config, out=tmp_path / "pets")
    assert set(shown) == {(), ("flip",)}


# Choosing ------------------------------------------------------------------------------------------------


class Examiner:
    """Stands in for ``evaluate``: gives the accuracies it is told to, and keeps what it was shown."""

    def __init__(self, accuracies: list[float]) -> None:
        self.accuracies, self.candidates, self.tests = accuracies, [], []

    def __call__(self, candidate: Generator, test: LabelledImages, **_: Any) -> Any:
        self.candidates.append({k: v.clone() for k, v in candidate.decoder.state_dict().items()})
        self.tests.append(test)
        return type("Result", (), {"mean": self.accuracies[len(self.candidates) - 1]})


@pytest.mark.parametrize("name", ["codes", "paper"])
@pytest.mark.parametrize(
    ("accuracies", "best"), [([0.3, 0.9, 0.5], 1), ([0.9, 0.1, 0.2], 0), ([0.1, 0.2, 0.3], 2), ([0.4, 0.4, 0.4], 0)]
)
def test_the_best_look_is_kept(
    name: str, accuracies: list[float], best: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examiner = Examiner(accuracies)
    monkeypatch.setattr(candidates, "evaluate", examiner)
    first = "adversarial" if name == "paper" else "reconstruction"
    config = settings(
        name, matching={"steps": 9}, pool={"classifiers": ("convnet3",), "ages": (0,)}, **{first: {"steps": 2}}
    )
    result = distill(DATA, config=config, out=tmp_path)
    assert len(examiner.candidates) == 3
    assert facts(tmp_path)["chosen_step"] == (3, 6, 9)[best]
    for key, value in result.decoder.state_dict().items():
        assert torch.equal(value, examiner.candidates[best][key].to(torch.float16).to(value.dtype))


def test_held_out_images_are_never_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = DATA.images.clone()
    images[:, 0, 0, 0] = torch.arange(len(DATA)).to(torch.uint8)
    examiner, trained = Examiner([0.5] * 3), set()
    monkeypatch.setattr(candidates, "evaluate", examiner)
    for module in ("reconstruction", "pool", "matching"):
        draw = sys.modules[f"dim_data.distillation.{module}"].draw_batch

        def spy(data: LabelledImages, *rest: Any, draw: Any = draw) -> Any:
            trained.update(data.images[:, 0, 0, 0].tolist())
            return draw(data, *rest)

        monkeypatch.setattr(f"dim_data.distillation.{module}.draw_batch", spy)
    result = distill(replace(DATA, images=images), config=settings("codes"), out=tmp_path)
    held = set(examiner.tests[0].images[:, 0, 0, 0].tolist())
    assert len(held) == 6
    assert Counter(examiner.tests[0].labels.tolist()) == {0: 2, 1: 2, 2: 2}
    assert trained == set(range(36)) - held
    assert result.config.codes == 36


@pytest.mark.parametrize(
    ("limit", "counts"), [(9, [3, 3, 3]), (3, [1, 1, 1]), (35, [11, 11, 11]), (1000, [12, 12, 12])]
)
def test_codes_are_limited_and_stay_balanced(limit: int, counts: list[int], tmp_path: Path) -> None:
    config = settings("codes", max_codes=limit, **ONE_STEP)
    assert distill(DATA, config=config, out=tmp_path).bank.counts.tolist() == counts


def test_every_class_keeps_a_code(tmp_path: Path) -> None:
    few = torch.cat([(DATA.labels == label).nonzero()[:count, 0] for label, count in enumerate((12, 12, 2))])
    config = settings("codes", max_codes=4, **ONE_STEP)
    assert distill(DATA.subset(few), config=config, out=tmp_path).bank.counts.tolist() == [1, 1, 1]


def test_where_every_class_keeps_a_code_the_largest_give_theirs(tmp_path: Path) -> None:
    few = torch.cat([(DATA.labels == label).nonzero()[:count, 0] for label, count in enumerate((12, 2, 2))])
    for limit, counts in ((3, [1, 1, 1]), (5, [3, 1, 1]), (8, [6, 1, 1]), (15, [11, 1, 1])):
        config = settings("codes", max_codes=limit, **ONE_STEP)
        result = distill(DATA.subset(few), config=config, out=tmp_path / str(limit))
        assert result.bank.counts.tolist() == counts


def test_each_stage_has_its_rate(tmp_path: Path) -> None:
    config = settings("paper", adversarial={"lr": 3e-3}, matching={"lr": 4e-3})
    for count, rate in ((5, 3e-3), (15, 4e-3)):
        steps: list[StageStep] = []
        with pytest.raises(StoppedError):
            distill(
                DATA,
                config=config,
                out=tmp_path / str(count),
                on_step=steps.append,
                should_stop=lambda: len(steps) == count,  # noqa: B023
            )
        parts = torch.load(tmp_path / str(count) / "checkpoint.pt", weights_only=True)["states"]["main"]["parts"]
        assert [parts[name]["param_groups"][0]["lr"] for name in ("optimizer_g", "optimizer_d")] == [rate, rate]


def test_without_holdout_every_image_is_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examiner = Examiner([0.5] * 3)
    monkeypatch.setattr(candidates, "evaluate", examiner)
    distill(DATA, config=settings("codes", holdout=0.0), out=tmp_path)
    assert len(examiner.tests[0]) == len(DATA)
    assert Generator.from_pretrained(tmp_path / "before_matching").config.codes == len(DATA)


# Stopping and going on -----------------------------------------------------------------------------------


def position(name: str, stage: str, step: int) -> tuple[int, int]:
    return STAGES[name].index(stage), step


def start_child(name: str, out: Path, seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, __file__, name, str(out), str(seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},  # conftest lies a folder up
    )


@pytest.mark.skipif(os.name != "posix", reason="needs flock")
def test_two_runs_in_one_folder_are_refused(unbroken: Unbroken, tmp_path: Path) -> None:
    def interfere(step: StageStep) -> None:
        if step.step == 2:
            with pytest.raises(FileExistsError, match=r"another process is at work in .*: wait for it or stop it"):
                distill(DATA, config=settings("codes"), out=tmp_path, overwrite=True)

    distill(DATA, config=settings("codes"), out=tmp_path, on_step=interfere)
    assert_same_run(tmp_path, unbroken("codes"))
    distill(DATA, config=settings("codes"), out=tmp_path)  # and free again


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize(("name", "seconds"), [("codes", 0.0), ("paper", 0.02)])
def test_a_killed_run_ends_bit_equal(name: str, seconds: float, unbroken: Unbroken, tmp_path: Path) -> None:
    chance, reached = random.Random(), (0, 0)
    for stage in STAGES[name]:
        target, delay = (STAGES[name].index(stage), chance.randint(2, 10)), chance.random() * 0.03
        print(f"to be killed {delay:.4f} s after step {target[1]} of {stage}")
        with start_child(name, tmp_path / "run", seconds) as child:
            first = None
            for line in child.stdout:
                at = position(name, line.split()[0], int(line.split()[1]))
                first = first or at
                if at >= target:
                    time.sleep(delay)
                    child.send_signal(signal.SIGKILL)
                    break
            rest = child.stdout.read().splitlines()
        assert child.returncode == -signal.SIGKILL, child.stderr
        if seconds == 0:
            assert first >= reached, "a step was lost that a checkpoint held"
        reached = max([at, *(position(name, line.split()[0], int(line.split()[1])) for line in rest)])
        assert (tmp_path / "run" / "checkpoint.pt").is_file()
        assert not (tmp_path / "run" / "generator").exists()
    distill(DATA, config=settings(name), out=tmp_path / "run")
    assert_same_run(tmp_path / "run", unbroken(name))


@pytest.mark.parametrize("name", CHANGES)
def test_should_stop_stops_cleanly_and_the_same_call_goes_on(name: str, unbroken: Unbroken, tmp_path: Path) -> None:
    steps: list[StageStep] = []
    for sitting in (1, 6, 8, 5):
        count = len(steps)
        with pytest.raises(StoppedError, match=r"stopped in stage '\w+', step \d+ of \d+; saved in .*: the same call"):
            distill(
                DATA,
                config=settings(name),
                out=tmp_path,
                on_step=steps.append,
                should_stop=lambda: len(steps) == count + sitting,  # noqa: B023
            )
        assert len(steps) == count + sitting
    distill(DATA, config=settings(name), out=tmp_path, on_step=steps.append)
    at = [position(name, s.stage, s.step) for s in steps]
    assert at == sorted(set(at)), "no step is done twice"
    assert_same_run(tmp_path, unbroken(name))


@pytest.mark.parametrize(
    ("options", "left_out"),
    [
        ({"overwrite": True}, r" without overwrite=True \(--overwrite\)"),
        ({"resume": False}, r" without resume=False \(--no-resume\)"),
        (
            {"overwrite": True, "resume": False},
            r" without overwrite=True \(--overwrite\) and resume=False \(--no-resume\)",
        ),
    ],
)
def test_a_call_that_would_delete_or_refuse_its_run_says_which_call_resumes_it(
    options: dict[str, Any], left_out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[StageStep] = []
    common: dict[str, Any] = {"config": settings("codes"), "out": tmp_path, "on_step": steps.append}
    with pytest.raises(StoppedError, match=rf"saved in .*: the same call{left_out} resumes it$"):
        distill(DATA, **common, **options, should_stop=lambda: True)
    with pytest.raises(StoppedError, match=r"saved in .*: the same call resumes it$"):
        distill(DATA, **common, should_stop=lambda: True)
    assert [step.step for step in steps] == [1, 2]
    if "overwrite" in options:
        monkeypatch.setattr(runs.torch, "save", no_space)
        with pytest.raises(OSError, match=rf"free some space and run the same call{left_out} again$"):
            distill(DATA, **common, **options, should_stop=lambda: True)


@pytest.mark.parametrize(
    ("name", "last"), [("codes", 9), ("codes", 21), ("codes", 33), ("refined", 40), ("refined", 51)]
)
def test_a_stop_late_or_at_the_last_step_of_a_stage(name: str, last: int, unbroken: Unbroken, tmp_path: Path) -> None:
    steps: list[StageStep] = []
    with pytest.raises(StoppedError, match="stopped in stage"):
        distill(DATA, config=settings(name), out=tmp_path, on_step=steps.append, should_stop=lambda: len(steps) == last)
    distill(DATA, config=settings(name), out=tmp_path)
    assert_same_run(tmp_path, unbroken(name))


def test_refining_changes_codes_alone(unbroken: Unbroken, tmp_path: Path) -> None:
    plain = distill(DATA, config=settings("refined", refining={"looks": 0}), out=tmp_path)
    refined = Generator.from_pretrained(unbroken("refined") / "generator")
    assert refined.config == plain.config
    assert not torch.equal(refined.bank.codes, plain.bank.codes)
    for one, other in zip(refined.decoder.parameters(), plain.decoder.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["codes", "paper"])
def test_out_of_time_stops_cleanly_and_the_same_call_goes_on(name: str, unbroken: Unbroken, tmp_path: Path) -> None:
    stage = STAGES[name][0]
    for step in (1, 2, 3):
        sentence = rf"out of time in stage '{stage}', step {step} of \d+; saved in .*: the same call resumes it"
        with pytest.raises(StoppedError, match=sentence):
            distill(DATA, config=settings(name), out=tmp_path, max_minutes=0)
    for _ in range(50):
        try:
            distill(DATA, config=settings(name), out=tmp_path, max_minutes=0.2 / 60)
        except StoppedError:
            continue
        break
    assert_same_run(tmp_path, unbroken(name))


def test_time_is_counted_over_all_sittings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10**6, 6))
    monkeypatch.setattr(runs.time, "monotonic", lambda: float(next(clock)))
    minutes = []
    for limit in (1.0, 2.0, None):
        try:
            distill(DATA, config=settings("codes"), out=tmp_path, max_minutes=limit)
        except StoppedError:
            minutes.append(torch.load(tmp_path / "checkpoint.pt", weights_only=True)["seconds"] / 60)
    minutes.append(facts(tmp_path)["minutes"])
    assert minutes == sorted(minutes)
    assert 1 <= minutes[0] < minutes[1] - 1
    seconds = [json.loads(line)["seconds"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert seconds == sorted(seconds)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
@pytest.mark.parametrize(("at", "start"), [(("reconstruction", 11), ("pool", 1)), (("matching", 6), ("matching", 1))])
def test_an_interruption_loses_what_came_after_the_checkpoint_alone(
    error: type[BaseException], at: tuple[str, int], start: tuple[str, int], unbroken: Unbroken, tmp_path: Path
) -> None:
    def interrupt(record: StageStep) -> None:
        if (record.stage, record.step) == at:
            raise error("stop")

    with pytest.raises(error, match="stop"):
        distill(DATA, config=settings("codes"), out=tmp_path, on_step=interrupt, checkpoint_seconds=math.inf)
    steps: list[StageStep] = []
    distill(DATA, config=settings("codes"), out=tmp_path, on_step=steps.append)
    assert (steps[0].stage, steps[0].step) == start
    assert_same_run(tmp_path, unbroken("codes"))


def test_a_finished_run_returns_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = distill(DATA, config=settings("codes"), out=tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.setattr(stages, "_stages", lambda *_: pytest.fail("it began to train"))
    second = distill(DATA, config=settings("codes"), out=tmp_path, max_minutes=0)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert all(torch.equal(t, second.state_dict()[name]) for name, t in first.state_dict().items())


# What is for people -------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [RuntimeError, ImportError, AttributeError, OSError, MemoryError])
def test_no_picture_fails_a_run(
    error: type[Exception], unbroken: Unbroken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error("no fonts")

    whole = unbroken("codes")
    for name in ("save_curves", "save_grid"):
        monkeypatch.setattr(candidates, name, fail)
    with pytest.warns(UserWarning, match="was not drawn") as caught:
        distill(DATA, config=settings("codes"), out=tmp_path)
    said = [str(w.message) for w in caught]
    assert said[-2:] == [
        f"{tmp_path / n} was not drawn: {error.__name__}: no fonts" for n in ("samples.png", "curves.png")
    ]
    assert all("samples.png was not drawn" in text for text in said[:-1])
    weights = [out / "generator" / "model.safetensors" for out in (tmp_path, whole)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    monkeypatch.setattr(stages, "_stages", never)
    distill(DATA, config=settings("codes"), out=tmp_path)


def test_a_run_is_finished_before_its_pictures_are_drawn(
    unbroken: Unbroken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    whole = unbroken("codes")
    monkeypatch.setattr(candidates, "save_curves", interrupt)
    with pytest.raises(KeyboardInterrupt):
        distill(DATA, config=settings("codes"), out=tmp_path)
    monkeypatch.setattr(stages, "_stages", never)
    distill(DATA, config=settings("codes"), out=tmp_path)
    assert_same_run(tmp_path, whole)


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_nowhere", "agg", ""])
def test_curves_are_drawn_whatever_the_notebooks_backend(backend: str, unbroken: Unbroken, tmp_path: Path) -> None:
    code = f"""
import os
from pathlib import Path
from dim_data.distillation.pictures import save_curves
save_curves(Path({str(unbroken("codes"))!r}) / "metrics.jsonl", Path("curves.png"))
import matplotlib
print(os.environ["MPLBACKEND"], matplotlib.rcParams["backend"] if os.environ["MPLBACKEND"] == "agg" else "")
"""
    environment = {**os.environ, "MPLBACKEND": backend}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == (["agg", "agg"] if backend == "agg" else backend.split())
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > picture.height


# When things go wrong ------------------------------------------------------------------------------------


def spoil(
    monkeypatch: pytest.MonkeyPatch, name: str, step: int, how: Callable[[LoopState, StageStep], StageStep]
) -> None:
    """Let the first stage go wrong at a step."""
    loop = {"codes": "reconstruct", "paper": "train_adversarial"}[name]
    original = getattr(stages, loop)

    def spoiled(state: LoopState, *args: Any, **kwargs: Any) -> Iterator[StageStep]:
        for record in original(state, *args, **kwargs):
            yield how(state, record) if record.step == step else record

    monkeypatch.setattr(stages, loop, spoiled)


def bad_loss(state: LoopState, record: StageStep) -> StageStep:
    return replace(record, losses={**record.losses, "pixels": math.nan, "other": math.inf})


def bad_weight(state: LoopState, record: StageStep) -> StageStep:
    with torch.no_grad():
        next(state.parts["generator"].parameters()).mul_(math.inf)
    return record


@pytest.mark.parametrize("name", ["codes", "paper"])
@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        (
            bad_loss,
            r"stage '(\w+)' diverged at step 7 of 12: pixels, other is not finite; the last good checkpoint is .*pt",
        ),
        (
            bad_weight,
            r"generator has NaN or infinite weights after stage '(\w+)', step 7 of 12; the last good checkpoint",
        ),
    ],
)
def test_divergence_says_where_and_leaves_the_last_good_checkpoint(
    name: str, how: Any, sentence: str, unbroken: Unbroken, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        spoil(patch, name, 7, how)
        with pytest.raises(DivergenceError, match=sentence) as caught:
            distill(DATA, config=settings(name), out=tmp_path, checkpoint_seconds=0)
    assert repr(STAGES[name][-2]) in str(caught.value)
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["states"]["main"]
    assert saved["step"] == 6
    assert all(t.isfinite().all() for t in saved["parts"]["generator"].values())
    steps: list[StageStep] = []
    distill(DATA, config=settings(name), out=tmp_path, on_step=steps.append)
    assert steps[0].step == 7
    assert_same_run(tmp_path, unbroken(name))


def test_divergence_before_any_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, "paper", 3, bad_loss)
    with pytest.raises(DivergenceError, match=r"step 3 of 12.*no checkpoint had been written yet\. A smaller learning"):
        distill(DATA, config=settings("paper"), out=tmp_path, checkpoint_seconds=math.inf)


def test_weights_that_break_in_the_last_step_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, "codes", 12, bad_weight)
    with pytest.raises(
        DivergenceError, match=r"generator has NaN or infinite weights after stage 'reconstruction', step 12"
    ):
        distill(DATA, config=settings("codes"), out=tmp_path, checkpoint_seconds=math.inf)
    assert not (tmp_path / "before_matching").exists()


def test_a_real_divergence(tmp_path: Path) -> None:
    config = settings("codes", pool={"classifiers": ("convnet3",), "ages": (2,)}, matching={"logit_weight": 3e38})
    with pytest.raises(DivergenceError, match=r"stage 'matching' diverged at step 2 of 12: .*A smaller learning rate"):
        distill(DATA, config=config, out=tmp_path)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["done"] == ["pool", "first"]


def no_space(content: Any, file: Path) -> None:
    Path(file).write_bytes(b"half a checkpoint")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def broken_writer(content: Any, file: Path) -> None:
    Path(file).write_bytes(b"half a checkpoint")
    raise RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed")


@pytest.mark.parametrize(
    ("write", "reason"), [(no_space, "No space left on device"), (broken_writer, "file write failed")]
)
def test_a_full_disk_leaves_the_checkpoint_before(
    write: Callable[..., None], reason: str, unbroken: Unbroken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saves, real = [], torch.save

    def save(content: Any, file: Path) -> None:
        saves.append(content)
        (real if len(saves) < 15 else write)(content, file)

    monkeypatch.setattr(runs.torch, "save", save)
    sentence = rf"could not write .*checkpoint\.pt: .*{reason}.*The checkpoint before it is intact: free some space"
    with pytest.raises(OSError, match=sentence):
        distill(DATA, config=settings("codes"), out=tmp_path, checkpoint_seconds=0)
    assert not list(tmp_path.rglob("*.tmp"))
    left = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert left["states"]["main"]["step"] == saves[-1]["states"]["main"]["step"] - 1
    monkeypatch.setattr(runs.torch, "save", real)
    distill(DATA, config=settings("codes"), out=tmp_path)
    assert_same_run(tmp_path, unbroken("codes"))


@pytest.mark.parametrize("full", [True, False])
def test_what_ends_before_the_first_checkpoint_begins_anew(
    full: bool, unbroken: Unbroken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runs.torch, "save", no_space if full else killed)
        with pytest.raises(
            OSError if full else KeyboardInterrupt,
            match=r"No checkpoint had been written before: free some space and run the same call" if full else None,
        ):
            distill(DATA, config=settings("codes"), out=tmp_path, checkpoint_seconds=math.inf)
    distill(DATA, config=settings("codes"), out=tmp_path)
    assert_same_run(tmp_path, unbroken("codes"))


def test_a_run_killed_right_after_its_first_stage_goes_on(
    unbroken: Unbroken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Generator.save_pretrained

    def killed(self: Generator, folder: Path, **options: Any) -> Any:
        real(self, folder, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Generator, "save_pretrained", killed)
        with pytest.raises(KeyboardInterrupt):
            distill(DATA, config=settings("codes"), out=tmp_path, checkpoint_seconds=math.inf)
    assert (tmp_path / "before_matching").is_dir()
    distill(DATA, config=settings("codes"), out=tmp_path)
    assert_same_run(tmp_path, unbroken("codes"))


@pytest.mark.parametrize(("name", "file"), [("generator", "config.json"), ("generator", "training_config.json")])
def test_a_full_disk_for_the_result(name: str, file: str, unbroken: Unbroken, tmp_path: Path) -> None:
    real = Path.write_text

    def full(self: Path, *args: Any, **kwargs: Any) -> int:
        if self.parent.name == name and file in self.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        sentence = (
            r"could not write .*generator: .*No space left on device\. The checkpoint before it is intact: free some"
        )
        with pytest.raises(OSError, match=sentence):
            distill(DATA, config=settings("codes"), out=tmp_path)
    distill(DATA, config=settings("codes"), out=tmp_path)
    assert_same_run(tmp_path, unbroken("codes"))


def test_a_full_disk_for_the_log(unbroken: Unbroken, tmp_path: Path) -> None:
    real, written = Path.open, []

    def full(self: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if self.name == "metrics.jsonl" and mode == "a":
            written.append(self)
            if len(written) == 4:
                with real(self, mode) as file:
                    file.write('{"stage": "reconst')
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(self, mode, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(OSError, match=r"could not write .*metrics\.jsonl: .*No space left on device"):
            distill(DATA, config=settings("codes"), out=tmp_path, checkpoint_seconds=0)
    distill(DATA, config=settings("codes"), out=tmp_path)
    assert_same_run(tmp_path, unbroken("codes"))


def stopped(out: Path, name: str = "codes", after: int = 15) -> None:
    steps: list[StageStep] = []
    with pytest.raises(StoppedError):
        distill(DATA, config=settings(name), out=out, on_step=steps.append, should_stop=lambda: len(steps) >= after)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1000]),
        lambda path: path.write_bytes(path.read_bytes()[:1000]),
        lambda path: path.write_text("not a checkpoint"),
        lambda path: torch.save({"weights": torch.zeros(3)}, path),
        lambda path: torch.save([1, 2], path),
        lambda path: alter(path, lambda c: c["states"]["main"]["parts"].pop("encoder")),
        lambda path: alter(path, lambda c: c["states"]["main"]["parts"]["generator"].popitem()),
    ],
)
def test_a_damaged_checkpoint_says_what_to_do(damage: Callable[[Path], object], tmp_path: Path) -> None:
    stopped(tmp_path)
    damage(tmp_path / "checkpoint.pt")
    content = (tmp_path / "checkpoint.pt").read_bytes()
    sentence = (
        r"checkpoint\.pt cannot be resumed: it is damaged or of another version \(\w+\)\. .*overwrite=True \(--over"
    )
    with pytest.raises(ValueError, match=sentence):
        distill(DATA, config=settings("codes"), out=tmp_path)
    assert (tmp_path / "checkpoint.pt").read_bytes() == content
    with pytest.raises(StoppedError, match="step 1 of 9"):
        distill(DATA, config=settings("codes"), out=tmp_path, overwrite=True, max_minutes=0)


def alter(path: Path, change: Callable[[Any], object]) -> None:
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)


def test_a_checkpoint_is_never_unpickled(tmp_path: Path) -> None:
    stopped(tmp_path)

    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "mark",)

    torch.save({"done": Hostile()}, tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match="cannot be resumed: it is damaged"):
        distill(DATA, config=settings("codes"), out=tmp_path)
    assert not (tmp_path / "mark").exists()


def test_what_a_kill_leaves_half_written_is_removed(unbroken: Unbroken, tmp_path: Path) -> None:
    (tmp_path / ".run.json.123.tmp").touch()
    stopped(tmp_path)
    for name in (".checkpoint.pt.123.tmp", ".samples.png.123.tmp", "generator/.model.safetensors.123.tmp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"half")
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "reconstruction", "step": 999, "pixels": 0.1}\n{"sta')
    distill(DATA, config=settings("codes"), out=tmp_path)
    assert_same_run(tmp_path, unbroken("codes"))


def test_a_log_that_lost_lines_is_not_padded(tmp_path: Path) -> None:
    stopped(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("")
    distill(DATA, config=settings("codes"), out=tmp_path)
    assert {record["stage"] for record in lines(tmp_path)} == {"reconstruction", "matching", "selection"}


# The output folder ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"config": settings("codes", seed=1)}, r"config\.seed \(0 there, 1 here\)"),
        ({"config": settings("codes", pool={"ages": (6, 4)})}, r"config\.pool\.ages \(\[6, 3\] there, \[6, 4\] here\)"),
        (
            {"config": settings("codes", options={"width": 8})},
            r"config\.options\.top_width \(4 there, nothing here\).*",
        ),
        ({"data": DATA.subset(torch.arange(30))}, r"data \('\w+' there, '\w+' here\)"),
        ({"data": replace(DATA, soft=torch.eye(3)[DATA.labels])}, r"data \('\w+' there, '\w+' here\)"),
        ({"data": replace(DATA, spec=replace(DATA.spec, mirror=True))}, r"spec\.mirror \(False there, True here\)"),
        (
            {"data": replace(DATA, labels=DATA.labels.flip(0)), "config": settings("codes", source="noise")},
            r"config\.source \('codes' there, 'noise' here\), data \('\w+' there, '\w+' here\)",
        ),
    ],
)
def test_a_folder_of_another_run_is_refused(change: dict[str, Any], names: str, tmp_path: Path) -> None:
    stopped(tmp_path, after=3)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    call: dict[str, Any] = {"data": DATA, "config": settings("codes"), "out": tmp_path, **change}
    sentence = (
        rf"holds another run, which differs in {names}: choose another folder, or pass overwrite=True \(--overwrite\)"
    )
    with pytest.raises(FileExistsError, match=sentence):
        distill(**call)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("inner", [".", "run", "ant/run"])
def test_a_run_does_not_lie_among_its_images(inner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ant", "bee"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.fromarray(DATA.images[0, 0].numpy()).save(tmp_path / "photos" / name / "0.png")
    monkeypatch.chdir(tmp_path / "photos")
    with pytest.raises(ValueError, match=rf"{inner} lies in \., where it would be read as a class of images"):
        distill(".", config=settings("codes"), out=inner)
    assert {path.name for path in (tmp_path / "photos").iterdir()} == {"ant", "bee"}


def test_images_that_differ_each_time_are_hinted_at(tmp_path: Path) -> None:
    stopped(tmp_path, after=3)
    other = replace(DATA, images=DATA.images.flip(-1))
    with pytest.raises(FileExistsError, match=r"to begin anew\. Images that a random transform makes are others"):
        distill(other, config=settings("codes"), out=tmp_path)


def test_a_finished_run_keeps_no_weights_but_its_result(unbroken: Unbroken) -> None:
    left = torch.load(unbroken("codes") / "checkpoint.pt", weights_only=True)
    assert (left["states"], left["best"]) == ({}, None)


def test_a_run_is_not_resumed_against_ones_will(tmp_path: Path) -> None:
    stopped(tmp_path, after=3)
    with pytest.raises(FileExistsError, match=r"holds this run already: choose another folder, or pass overwrite=True"):
        distill(DATA, config=settings("codes"), out=tmp_path, resume=False)
    distill(DATA, config=settings("codes"), out=tmp_path / "new", resume=False, max_minutes=None)


@pytest.mark.parametrize("finished", [True, False])
def test_overwrite_begins_anew(finished: bool, unbroken: Unbroken, tmp_path: Path) -> None:
    if finished:
        shutil.copytree(unbroken("noise"), tmp_path, dirs_exist_ok=True)
    else:
        stopped(tmp_path, "noise")
    steps: list[StageStep] = []
    stop = {"should_stop": lambda: True, "on_step": steps.append}
    with pytest.raises(StoppedError, match="step 1 of 9"):
        distill(DATA, config=settings("codes"), out=tmp_path, overwrite=True, **stop)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint.pt", "run.json"}
    distill(DATA, config=settings("codes"), out=tmp_path)
    assert_same_run(tmp_path, unbroken("codes"))


def test_a_damaged_identity_is_another_run(tmp_path: Path) -> None:
    stopped(tmp_path, after=3)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(
        FileExistsError, match=r"holds a run whose run\.json is damaged: choose another folder, or pass"
    ):
        distill(DATA, config=settings("codes"), out=tmp_path)


def test_a_run_that_names_a_stage_it_has_not_goes_on(unbroken: Unbroken, tmp_path: Path) -> None:
    """As earlier versions wrote them, whose defaults were others."""
    stopped(tmp_path)
    run = json.loads((tmp_path / "run.json").read_text())
    assert "prior" not in run["config"]
    run["config"]["prior"] = {"epochs": 40.0, "blur": 0.4}
    (tmp_path / "run.json").write_text(json.dumps(run))
    distill(DATA, config=settings("codes"), out=tmp_path)
    assert_same_run(tmp_path, unbroken("codes"))


OLD_RUN = """{
  "config": {"architecture": "compact", "source": "codes", "first": "reconstruction", "first_steps": 400, "seed": 0},
  "data": "0123456789abcdef",
  "spec": {"name": "tiny", "channels": 1, "size": 28},
  "device": "cpu"
}"""


def test_a_run_that_another_version_began_is_refused_plainly(tmp_path: Path) -> None:
    stopped(tmp_path, after=3)
    newer = json.dumps({**json.loads((tmp_path / "run.json").read_text()), "version": 99})
    for text, version in ((OLD_RUN, 1), (newer, 99)):
        (tmp_path / "run.json").write_text(text)
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        sentence = (
            rf"holds a run that another version of dim_data began: only that version can go on with it \(its run\.json "
            rf"has the version {version}, this one writes 4\): choose another folder, or pass overwrite=True"
        )
        with pytest.raises(FileExistsError, match=sentence):
            distill(DATA, config=settings("codes"), out=tmp_path)
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    with pytest.raises(StoppedError):
        distill(DATA, config=settings("codes"), out=tmp_path, overwrite=True, max_minutes=0)


def test_a_renamed_data_folder_goes_on(tmp_path: Path) -> None:
    for index, (image, label) in enumerate(zip(DATA.images, DATA.labels.tolist(), strict=True)):
        path = tmp_path / "photos" / f"class{label}" / f"{index:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).save(path)
    distill(tmp_path / "photos", config=settings("codes"), out=tmp_path / "whole")
    steps: list[StageStep] = []
    with pytest.raises(StoppedError):
        distill(tmp_path / "photos", config=settings("codes"), out=tmp_path / "run", should_stop=lambda: True)
    (tmp_path / "photos").rename(tmp_path / "pictures")
    result = distill(tmp_path / "pictures", config=settings("codes"), out=tmp_path / "run", on_step=steps.append)
    assert steps[0].step == 2
    assert result.spec.name == "pictures"
    weights = [tmp_path / name / "generator" / "model.safetensors" for name in ("whole", "run")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert torch.equal(
        distill(tmp_path / "pictures", config=settings("codes"), out=tmp_path / "whole").bank.codes, result.bank.codes
    )
    (tmp_path / "pictures" / "class2").rename(tmp_path / "pictures" / "class3")
    with pytest.raises(
        FileExistsError, match=r"differs in spec\.classes \(\['class0', .*'class2'\] there, .*'class3'\] here"
    ):
        distill(tmp_path / "pictures", config=settings("codes"), out=tmp_path / "run")


def never(*_: Any) -> None:
    pytest.fail("it began to train")


def test_a_finished_run_without_its_checkpoint_is_not_trained_again(
    unbroken: Unbroken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(unbroken("codes"), tmp_path, dirs_exist_ok=True)
    (tmp_path / "checkpoint.pt").unlink()
    monkeypatch.setattr(stages, "_stages", never)
    result = distill(DATA, config=settings("codes"), out=tmp_path)
    assert torch.equal(result.bank.codes, Generator.from_pretrained(unbroken("codes") / "generator").bank.codes)
    assert not (tmp_path / "checkpoint.pt").exists()
    shutil.rmtree(tmp_path / "generator")
    with pytest.raises(
        FileExistsError, match=r"holds a finished run, and its generator/ is gone: put it back, or pass"
    ):
        distill(DATA, config=settings("codes"), out=tmp_path)


def test_a_run_that_lost_its_checkpoint_is_not_silently_begun_anew(tmp_path: Path) -> None:
    stopped(tmp_path, after=25)
    (tmp_path / "checkpoint.pt").unlink()
    log = (tmp_path / "metrics.jsonl").read_text()
    with pytest.raises(FileNotFoundError, match=r"checkpoint\.pt is gone, .*: put back a copy, or pass overwrite=True"):
        distill(DATA, config=settings("codes"), out=tmp_path)
    assert (tmp_path / "metrics.jsonl").read_text() == log


def test_a_finished_run_is_read_where_nothing_can_be_written(
    unbroken: Unbroken, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, *args: Any, **kwargs: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    whole = unbroken("codes")
    for call in ("touch", "write_text"):
        monkeypatch.setattr(Path, call, refuse)
    assert distill(DATA, config=settings("codes"), out=whole).config.codes == 36


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_folder_that_is_no_run_is_never_touched(overwrite: bool, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("five years of work")
    with pytest.raises(FileExistsError, match=r"is not empty and holds no run of distill\(\): choose another folder"):
        distill(DATA, config=settings("codes"), out=tmp_path, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    for out in (path, path / "run", path / "new" / "run"):
        with pytest.raises(OSError, match=rf"cannot write to '{out}': '.*file' is a file; choose another folder"):
            distill("nowhere", config=settings("codes"), out=out)  # before the data is looked for


def test_a_file_in_the_place_of_the_result_is_found_out_before_training(tmp_path: Path) -> None:
    stopped(tmp_path, after=3)
    (tmp_path / "generator").touch()
    with pytest.raises(OSError, match=r"cannot use .* as the output folder: .*'.*generator' is a file; choose another"):
        distill(DATA, config=settings("codes"), out=tmp_path, on_step=never)


def test_a_full_disk_is_found_out_before_the_data_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(dir: Path) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(OSError, match=r"could not write '.*run': No space left on device"):
        distill("nowhere", config=settings("codes"), out=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", ["mkdir", "write_text"])
def test_an_unwritable_folder_is_named(call: str, tmp_path: Path) -> None:
    def refuse(self: Path, *args: Any, **kwargs: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, call, refuse)
        with pytest.raises(
            OSError, match=r"cannot use .*run as the output folder: .*Permission denied.*; choose another"
        ):
            distill(DATA, config=settings("codes"), out=tmp_path / "run")


# Bad input -----------------------------------------------------------------------------------------------


ONE_LESS = torch.cat([(DATA.labels != 2).nonzero()[:, 0], torch.tensor([2])])


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"config": "best"}, ValueError, r"unknown preset 'best': choose from \['default', 'noise', 'paper'\]"),
        (
            {"config": settings("codes", max_codes=2)},
            ValueError,
            "max_codes must be 0 or at least one a class, 3, got 2",
        ),
        (
            {"config": settings("noise", max_codes=2)},
            ValueError,
            "max_codes must be 0 or at least one a class, 3, got 2",
        ),
        ({"data": DATA.subset(ONE_LESS)}, ValueError, r"at least 2 images, one to hold out; too few of 'class2' \(1\)"),
        (
            {"data": replace(DATA, spec=make_spec(1, 28, 4)), "config": settings("codes", holdout=0.0)},
            ValueError,
            r"every class needs at least 1 image; too few of 'class3' \(0\)",
        ),
        ({"data": (DATA.images[:0], DATA.labels[:0])}, ValueError, "the data is empty"),
        ({"data": (DATA.images, DATA.labels * 0)}, ValueError, "the data has a single class"),
        ({"data": (DATA.images / 128, DATA.labels)}, ValueError, r"float images must lie in \[0, 1\]"),
        ({"data": "nowhere"}, FileNotFoundError, "no data at 'nowhere'"),
        ({"data": "cifar10"}, FileNotFoundError, "say where the files of 'cifar10' are: root="),
        (
            {"data": (DATA.images, DATA.labels), "spec": make_spec(3, 32)},
            ValueError,
            "images: 28x28 pixels, but tiny images are 32x32; size=32",
        ),
        (
            {"data": (torch.zeros(6, 50, 50), [0, 1] * 3)},
            ValueError,
            r"images: 50x50 pixels, but images must have 28, 32, 36 ... 128 pixels; size=48",
        ),
        (
            {"data": (torch.zeros(6, 1, 36, 36), [0, 1] * 3), "config": settings("paper")},
            ValueError,
            r"images: 36x36 pixels, but images must have 28 to 32, 49 to 64, 97 to 128 pixels; size=32",
        ),
        ({"size": 30, "data": "nowhere"}, ValueError, "size=30 cannot be used: it must be one of 28, 32, 36 ... 128"),
    ],
)
def test_bad_arguments_raise_before_anything_is_written(
    change: dict[str, Any], error: type[Exception], sentence: str, tmp_path: Path
) -> None:
    call: dict[str, Any] = {"data": DATA, "config": settings("codes"), "out": tmp_path / "run", **change}
    with pytest.raises(error, match=sentence):
        distill(**call)
    assert not (tmp_path / "run").exists()


def test_a_missing_gpu_raises(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(RuntimeError, match="torch finds no GPU here; pass device='cpu'"):
        distill(DATA, config=settings("codes"), out=tmp_path / "run", device="cuda")
    assert not (tmp_path / "run").exists()


if __name__ == "__main__":
    shrink()
    candidates.save_curves = lambda metrics, path: None
    distill(
        DATA,
        config=settings(sys.argv[1]),
        out=sys.argv[2],
        checkpoint_seconds=float(sys.argv[3]),
        on_step=lambda record: print(record.stage, record.step, flush=True),
    )


def test_photos_of_any_size_are_distilled(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for index in range(12):
        pixels = rng.integers(0, 256, (30 + index, 45 - index, 3), np.uint8)
        (tmp_path / "photos" / f"class{index % 3}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"class{index % 3}" / f"{index}.jpg")
    config = settings("codes", reconstruction={"steps": 2}, matching={"steps": 0}, selection={"checkpoints": 0})
    generator = distill(tmp_path / "photos", config=config, out=tmp_path / "run", size=28)
    assert (generator.spec.name, generator.spec.size, generator.spec.channels) == ("photos", 28, 3)
    with pytest.raises(ValueError, match=r"0.jpg: 45x30 pixels, but images must be square; size=28 "):
        distill(tmp_path / "photos", config=config, out=tmp_path / "other")
    items = [{"picture": DATA.images[i], "kind": int(DATA.labels[i])} for i in range(30)]
    assert distill(items, config=config, out=tmp_path / "items", columns=("picture", "kind")).spec.size == 28


def test_a_tilde_in_the_folders_path_is_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    config = settings("codes", matching={"steps": 0}, selection={"checkpoints": 0})
    made = distill(DATA, config=config, out="~/runs")
    assert (tmp_path / "runs" / "run.json").is_file()
    assert made.save_pretrained("~/copy") == tmp_path / "copy"
    for folder in ("~/copy", Path("~/runs/generator")):
        assert Generator.from_pretrained(folder).config == made.config
    with pytest.raises(ValueError, match="lies in"):
        distill(tmp_path, config=config, out="~/more")


@pytest.mark.parametrize("config", [3, {"seed": 3}])
def test_what_is_no_configuration_is_refused(config: Any, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"config must be the name of a preset, 'default' or .*, or a DistillConfig, "):
        distill(DATA, config=config, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
