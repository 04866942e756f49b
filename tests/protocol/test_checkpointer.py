from __future__ import annotations

import errno
import os
import pickle
import re
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from conftest import make_data
from dim_data.generator.model import Generator
from dim_data.images.specs import ImageSpec
from dim_data.protocol import checkpointer
from dim_data.protocol.evaluation import evaluate
from dim_data.protocol.recipes import RECIPES
from dim_data.protocol.states import StoppedError
from dim_data.protocol.training import ClassifierStep

pytestmark = pytest.mark.usefixtures("small_classifiers")

TRAIN, TEST = make_data(3, 32), make_data(3, 32, seed=1)
SETTINGS: dict[str, Any] = {"ipc": 4, "epochs": 5, "seeds": (0, 1)}


class KilledError(Exception):
    pass


def killer(losses: list[float], at: int) -> Callable[[ClassifierStep], None]:
    """Note the losses, and die after ``at`` steps."""

    def note(step: ClassifierStep) -> None:
        losses.append(step.loss)
        if len(losses) == at:
            raise KilledError

    return note


def forgetful(spec: ImageSpec) -> nn.Module:
    """A classifier that draws random numbers of its own."""
    pixels = spec.channels * spec.size**2
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(pixels, spec.num_classes))


def taught(recipe: str) -> Any:
    return replace(RECIPES[recipe], batch_size=5, augmentation=("flip", "crop"))  # 12 images: 5, 5 and 2


@pytest.mark.parametrize("classifier", ["convnet3", "resnet10", forgetful])
@pytest.mark.parametrize("recipe", ["tuned", "muon", "paper"])
def test_a_killed_evaluation_ends_as_an_unbroken_one(
    tiny_codes: Generator, tmp_path: Path, classifier: Any, recipe: str
) -> None:
    path, losses, whole = tmp_path / "kept.pt", [], []
    settings: dict[str, Any] = {**SETTINGS, "classifier": classifier, "recipe": taught(recipe), "checkpoint_seconds": 0}
    unbroken = evaluate(tiny_codes, TEST, **settings, on_step=lambda s: whole.append(s.loss))
    assert len(whole) == 30
    for at in (1, 7, 15, 16, 29, 30):  # of 15 steps a seed
        with pytest.raises(KilledError):
            evaluate(tiny_codes, TEST, **settings, checkpoint=path, on_step=killer(losses, at))
        assert path.exists()
        torch.rand(3)
    result = evaluate(tiny_codes, TEST, **settings, checkpoint=path, on_step=killer(losses, -1))
    assert losses == whole
    assert result.accuracies == unbroken.accuracies
    assert list(tmp_path.iterdir()) == []


def test_what_is_done_is_not_done_again_and_its_time_counts(tmp_path: Path) -> None:
    path, losses = tmp_path / "kept.pt", []
    evaluation = partial(evaluate, TRAIN, TEST, **SETTINGS, checkpoint=path, checkpoint_seconds=0)
    with pytest.raises(KilledError):
        evaluation(on_step=killer(losses, 8))
    content = torch.load(path, weights_only=True)
    torch.save({**content, "seconds": 1000.0}, path)
    steps: list[ClassifierStep] = []
    assert evaluation(on_step=steps.append).seconds > 1000
    assert [(s.seed, s.step) for s in steps] == [(1, 4), (1, 5)]


def test_nothing_is_written_before_it_is_time(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        evaluate(TRAIN, TEST, **SETTINGS, checkpoint=tmp_path / "kept.pt", on_step=killer([], 9))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """The checkpoint of an evaluation that was killed."""
    path = tmp_path / "kept.pt"
    with pytest.raises(KilledError):
        evaluate(TRAIN, TEST, **SETTINGS, checkpoint=path, checkpoint_seconds=0, on_step=killer([], 2))
    return path


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"train": TEST}, r"train\.digest \('\w+' there, '\w+' here\)"),
        ({"train": replace(TRAIN, soft=torch.eye(3)[TRAIN.labels])}, r"train\.digest \(.* here\)"),
        (
            {"train": replace(TRAIN, spec=replace(TRAIN.spec, std=(0.5,) * 3))},
            r"train\.std \(\[0\.25, 0\.25, .* here\)",
        ),
        ({"test": TRAIN}, r"test\.digest \(.* here\)"),
        (
            {"classifier": forgetful},
            r"classifier \('convnet3' there, 'forgetful' here\), network \(nothing there, \{'kind': 'Sequential', .*\)",
        ),
        ({"recipe": "paper"}, r"recipe\.name \('tuned' there, 'paper' here\), recipe\.batch_size .* and \d more"),
        ({"ipc": 5}, r"ipc \(4 there, 5 here\)"),
        ({"epochs": 6}, r"epochs \(5 there, 6 here\)"),
        ({"seeds": (0,)}, r"seeds \(\[0, 1\] there, \[0\] here\)"),
        ({"ipc": 5, "seeds": (1, 0)}, r"ipc \(4 there, 5 here\), seeds \(\[0, 1\] there, \[1, 0\] here\)"),
    ],
)
def test_the_checkpoint_of_another_evaluation_is_refused(kept: Path, changes: dict[str, Any], named: str) -> None:
    before = kept.read_bytes()
    arguments = {"train": TRAIN, "test": TEST, **SETTINGS, **changes}
    with pytest.raises(ValueError, match=rf"is of other work: it differs in {named}\. Finish that one"):
        evaluate(**arguments, checkpoint=kept)
    assert kept.read_bytes() == before


def test_generators_are_told_apart_by_their_weights(tiny_codes: Generator, tmp_path: Path) -> None:
    path, fewer = tmp_path / "kept.pt", tiny_codes.keep_codes(60)
    with pytest.raises(KilledError):
        evaluate(tiny_codes, TEST, **SETTINGS, checkpoint=path, checkpoint_seconds=0, on_step=killer([], 2))
    with pytest.raises(ValueError, match=r"differs in train\.digest"):
        evaluate(fewer, TEST, **SETTINGS, checkpoint=path)


@pytest.mark.parametrize(("before", "after"), [(0.5, 1), (1, 0.5), (0.5, 0.25)])
def test_evaluations_are_told_apart_by_how_much_is_new(
    tiny_prior: Generator, before: float, after: float, tmp_path: Path
) -> None:
    path = tmp_path / "kept.pt"
    with pytest.raises(KilledError):
        evaluate(
            tiny_prior, TEST, **SETTINGS, refresh=before, checkpoint=path, checkpoint_seconds=0, on_step=killer([], 2)
        )
    with pytest.raises(ValueError, match=rf"differs in refresh \({before} there, {after} here\)"):
        evaluate(tiny_prior, TEST, **SETTINGS, refresh=after, checkpoint=path)


def flat(spec: ImageSpec, last: Callable[[], nn.Module] = nn.Identity, scale: float = 1.0) -> nn.Module:
    linear = nn.Linear(spec.channels * spec.size**2, spec.num_classes)
    linear.weight.data.mul_(scale)
    return nn.Sequential(nn.Flatten(), linear, last())


def frozen(spec: ImageSpec) -> nn.Module:
    model = flat(spec)
    model[1].bias.requires_grad_(False)  # type: ignore[index, union-attr]
    return model


class Scaled(nn.Module):
    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.by


@pytest.mark.parametrize(
    ("first", "second", "named"),
    [
        (lambda spec: flat(spec), lambda spec: flat(spec, nn.ReLU), "layers"),
        (lambda spec: flat(spec), lambda spec: flat(spec, scale=2.0), "weights"),
        (lambda spec: flat(spec), lambda spec: nn.ModuleList([flat(spec)])[0][1:], "layers"),
        (lambda spec: flat(spec), lambda spec: frozen(spec), "layers"),
        (lambda spec: flat(spec, lambda: Scaled(1.0)), lambda spec: flat(spec, lambda: Scaled(2.0)), "layers"),
        (partial(flat, scale=1.0), partial(flat, scale=2.0), "weights"),
    ],
)
def test_classifiers_of_one_name_are_told_apart_by_what_is_built(
    first: Any, second: Any, named: str, tmp_path: Path
) -> None:
    path = tmp_path / "kept.pt"
    options: dict[str, Any] = {**SETTINGS, "checkpoint": path, "checkpoint_seconds": 0}
    with pytest.raises(KilledError):
        evaluate(TRAIN, TEST, first, **options, on_step=killer([], 2))
    before = path.read_bytes()
    with pytest.raises(
        ValueError, match=rf"is of other work: it differs in network\.{named} \('\w+' there, '\w+' here\)"
    ):
        evaluate(TRAIN, TEST, second, **options)
    assert path.read_bytes() == before
    evaluate(TRAIN, TEST, first, **options)


def test_a_classifier_called_like_a_known_one_is_told_apart(kept: Path) -> None:
    def other(spec: ImageSpec) -> nn.Module:
        return flat(spec)

    other.__name__ = "convnet3"
    with pytest.raises(ValueError, match=r"is of other work: it differs in network \(nothing there, "):
        evaluate(TRAIN, TEST, other, **SETTINGS, checkpoint=kept)
    assert kept.exists()


def test_weights_that_are_drawn_from_elsewhere_and_lazy_ones_go_on(tmp_path: Path) -> None:
    drawn = iter(range(100))

    def build(spec: ImageSpec) -> nn.Module:
        return nn.Sequential(flat(spec, scale=1.0 + next(drawn)), nn.LazyLinear(spec.num_classes))

    options: dict[str, Any] = {**SETTINGS, "checkpoint": tmp_path / "kept.pt", "checkpoint_seconds": 0}
    with pytest.raises(KilledError):
        evaluate(TRAIN, TEST, build, **options, on_step=killer([], 2))
    before, losses = torch.get_rng_state(), []
    evaluate(TRAIN, TEST, build, **options, on_step=killer(losses, -1))
    assert len(losses) == 8
    assert torch.equal(torch.get_rng_state(), before)


class Ran:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("ran"),)


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "less", "pickle"])
def test_a_damaged_checkpoint_is_named_and_kept(
    kept: Path, damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = kept.read_bytes()
    broken = {"empty": b"", "cut": whole[: len(whole) // 2], "text": b"nothing", "pickle": pickle.dumps(Ran(), 2)}
    if damage == "less":
        torch.save({"accuracies": []}, kept)
    else:
        kept.write_bytes(broken[damage])
    with pytest.raises(ValueError, match=r"kept\.pt cannot be resumed: it is damaged .*remove it to begin anew"):
        evaluate(TRAIN, TEST, **SETTINGS, checkpoint=kept)
    assert kept.exists()
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("", "it is a folder; name a file"),
        ("nowhere/kept.pt", "'.*nowhere' is no folder; make it first"),
        ("file/kept.pt", "'.*file' is no folder; make it first"),
        ("/proc/kept.pt", "(No such file|Permission denied|Operation not permitted)"),
        ("/dev/null", "it is a device or a pipe; name a file"),
        ("x" * 300, "File name too long"),
    ],
)
@pytest.mark.skipif(os.name != "posix", reason="needs /proc and /dev")
def test_a_checkpoint_that_cannot_be_written_is_found_out_before_training(
    place: str, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    started: list[ClassifierStep] = []
    with pytest.raises(OSError, match=rf"{re.escape(place)}'.*{reason}|{reason}: .*{re.escape(place)}"):
        evaluate(TRAIN, TEST, **SETTINGS, checkpoint=tmp_path / place, on_step=started.append)
    assert started == []
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_is_found_out_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(dir: Path) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    started: list[ClassifierStep] = []
    with pytest.raises(OSError, match=r"could not write '.*kept\.pt': No space left on device"):
        evaluate(TRAIN, TEST, **SETTINGS, checkpoint=tmp_path / "kept.pt", on_step=started.append)
    assert started == []


def test_a_disk_that_fills_up_later_leaves_what_was_there(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(content: Any, file: Path) -> None:
        file.write_bytes(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file")

    before = kept.read_bytes()
    monkeypatch.setattr(checkpointer.torch, "save", full)
    with pytest.raises(OSError, match=r"could not write .*kept\.pt: Pytorch.* What was there before is intact"):
        evaluate(TRAIN, TEST, **SETTINGS, checkpoint=kept, checkpoint_seconds=0)
    assert kept.read_bytes() == before
    assert list(kept.parent.iterdir()) == [kept]


@pytest.mark.parametrize("at", [1, 5, 6, 10])
def test_an_evaluation_that_is_asked_to_stop_saves_and_goes_on(at: int, tmp_path: Path) -> None:
    path, losses, whole = tmp_path / "kept.pt", [], []
    unbroken = evaluate(TRAIN, TEST, **SETTINGS, on_step=lambda s: whole.append(s.loss))
    first: Any = {"checkpoint": path, "on_step": killer(losses, -1), "should_stop": lambda: len(losses) == at}
    seed, step = divmod(at - 1, 5)
    sentence = rf"stopped in seed {seed}, step {step + 1} of 5; saved in .*kept\.pt: the same call resumes it"
    with pytest.raises(StoppedError, match=sentence):
        evaluate(TRAIN, TEST, **SETTINGS, **first)
    result = evaluate(TRAIN, TEST, **SETTINGS, checkpoint=path, on_step=killer(losses, -1))
    assert losses == whole
    assert result.accuracies == unbroken.accuracies
    assert not path.exists()


def test_a_tilde_in_a_checkpoints_path_is_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    with pytest.raises(KilledError):
        evaluate(TRAIN, TEST, **SETTINGS, checkpoint="~/kept.pt", checkpoint_seconds=0, on_step=killer([], 2))
    assert [path.name for path in tmp_path.iterdir()] == ["kept.pt"]
    assert checkpointer.seconds_kept(Path("~/kept.pt")) > 0


def test_without_a_checkpoint_nothing_is_kept_and_it_is_said() -> None:
    with pytest.raises(StoppedError, match="stopped in seed 0, step 1 of 5; nothing of it is kept, since no"):
        evaluate(TRAIN, TEST, **SETTINGS, should_stop=lambda: True)


def test_a_result_is_not_lost_to_a_file_that_stays(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.warns(UserWarning, match=r"kept\.pt is not needed any more, and could not be removed"):
        assert len(evaluate(TRAIN, TEST, **SETTINGS, checkpoint=kept).accuracies) == 2
