from __future__ import annotations

import pickle
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
from dim_data.protocol.evaluation import evaluate
from dim_data.protocol.recipes import RECIPES
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
        ({"train": TEST}, "train"),
        ({"train": replace(TRAIN, soft=torch.eye(3)[TRAIN.labels])}, "train"),
        ({"test": TRAIN}, "test"),
        ({"classifier": forgetful}, "classifier"),
        ({"recipe": "muon"}, "recipe"),
        ({"ipc": 5}, "ipc"),
        ({"epochs": 6}, "epochs"),
        ({"seeds": (0,)}, "seeds"),
        ({"ipc": 5, "seeds": (1, 0)}, "ipc, seeds"),
    ],
)
def test_the_checkpoint_of_another_evaluation_is_refused(kept: Path, changes: dict[str, Any], named: str) -> None:
    before = kept.read_bytes()
    arguments = {"train": TRAIN, "test": TEST, **SETTINGS, **changes}
    with pytest.raises(ValueError, match=rf"is of another evaluation: it differs in {named}\. Finish that one"):
        evaluate(**arguments, checkpoint=kept)
    assert kept.read_bytes() == before


def test_generators_are_told_apart_by_their_weights(tiny_codes: Generator, tmp_path: Path) -> None:
    path, fewer = tmp_path / "kept.pt", tiny_codes.keep_codes(60)
    with pytest.raises(KilledError):
        evaluate(tiny_codes, TEST, **SETTINGS, checkpoint=path, checkpoint_seconds=0, on_step=killer([], 2))
    with pytest.raises(ValueError, match="differs in train"):
        evaluate(fewer, TEST, **SETTINGS, checkpoint=path)


def test_classifiers_of_one_name_are_told_apart_by_their_weights(kept: Path) -> None:
    def other(spec: ImageSpec) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(spec.channels * spec.size**2, spec.num_classes))

    other.__name__ = "convnet3"
    with pytest.raises(ValueError, match=r"cannot be resumed: it is damaged or of another version \(RuntimeError\)"):
        evaluate(TRAIN, TEST, other, **SETTINGS, checkpoint=kept)
    assert kept.exists()


class Ran:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("ran"),)


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "less", "pickle", "folder"])
def test_a_damaged_checkpoint_is_named_and_kept(
    kept: Path, damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = kept.read_bytes()
    broken = {"empty": b"", "cut": whole[: len(whole) // 2], "text": b"nothing", "pickle": pickle.dumps(Ran(), 2)}
    if damage == "less":
        torch.save({"accuracies": []}, kept)
    elif damage == "folder":
        kept.unlink()
        kept.mkdir()
    else:
        kept.write_bytes(broken[damage])
    with pytest.raises(ValueError, match=r"kept\.pt cannot be resumed: it is damaged .*remove it to begin anew"):
        evaluate(TRAIN, TEST, **SETTINGS, checkpoint=kept)
    assert kept.exists()
    assert not Path("ran").exists()


def test_a_checkpoint_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"could not write .*nowhere/kept\.pt.*What was there before is intact"):
        evaluate(TRAIN, TEST, **SETTINGS, checkpoint=tmp_path / "nowhere" / "kept.pt", checkpoint_seconds=0)
