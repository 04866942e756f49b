"""A generator that is shrunk in several sittings: nothing that was trained is trained again."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from conftest import make_generator, make_spec
from dim_data import Generator, GeneratorConfig
from dim_data.cli import main, shrinking

MADE = {"config.json", "model.safetensors", "training_config.json"}
SLIM = ["--set", "options.width=8", "--steps", 4, "--epochs", 3]
pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")


def shrink(source: Path, out: Path, *options: object) -> int:
    return main([str(word) for word in ("shrink", source, *options, "--out", out, "--device", "cpu")])


def steps_of(patch: pytest.MonkeyPatch, stop: tuple[str, int] | None = None) -> list[tuple[str, int]]:
    """The steps that are trained from now on; Ctrl-C comes in that one, if any."""
    seen: list[tuple[str, int]] = []
    for bar in (shrinking.SeedBar, shrinking.StageBars):

        def advance(self: Any, record: Any) -> None:
            seen.append((getattr(record, "stage", "teacher"), record.step))
            if seen[-1] == stop:
                os.kill(os.getpid(), signal.SIGINT)

        patch.setattr(bar, "advance", advance)
    return seen


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(("noise", "last"), [([], 1), ([], 2), (["--noise", "--rank", 3], 2)])
def test_each_sitting_goes_on_where_the_one_before_was_stopped(
    noise: list[Any],
    last: int,
    codes_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options, out = [*noise, *SLIM], tmp_path / "broken"
    torch.set_num_threads(1)
    whole = steps_of(monkeypatch)
    assert shrink(codes_folder, tmp_path / "whole", *options) == 0
    assert whole == [("teacher", step) for step in (1, 2, 3)] + [("slimming", step) for step in (1, 2, 3, 4)]
    seen = []
    for stop, kept in ((("teacher", 2), {"teacher.pt"}), (("slimming", 2), {"teacher.pt", "slimming.pt"})):
        sitting = steps_of(monkeypatch, stop)
        assert shrink(codes_folder, out, *options) == 130
        assert "the same call resumes it" in capsys.readouterr().err
        assert {path.name for path in out.iterdir()} == kept
        seen += sitting
    (out / ".teacher.pt.7.tmp").touch()  # a kill's
    torch.set_num_threads(last)
    sitting = steps_of(monkeypatch)
    assert shrink(codes_folder, out, *options) == 0
    assert seen + sitting == whole
    assert {path.name for path in out.iterdir()} == MADE
    first, second = (load_file(folder / "model.safetensors") for folder in (tmp_path / "whole", out))
    assert first.keys() == second.keys()
    if last == 1:
        assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    notes = json.loads((out / "training_config.json").read_text())
    assert notes["derived"] == json.loads((tmp_path / "whole" / "training_config.json").read_text())["derived"]
    assert notes["teacher_minutes"] >= 0


def test_a_teacher_to_keep_goes_on_too_and_another_is_refused(
    codes_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, options = tmp_path / "out", ["--noise", "--soft-labels", "--rank", 3, "--epochs"]
    steps_of(monkeypatch, ("teacher", 1))
    assert shrink(codes_folder, out, *options, 2) == 130
    capsys.readouterr()
    assert shrink(codes_folder, out, *options, 3) == 1
    assert "teacher.pt is of other work: it differs in epochs (2 there, 3 here)" in capsys.readouterr().err
    assert shrink(codes_folder, out, "--noise") == 1  # which trains none
    assert "is not an empty folder" in capsys.readouterr().err
    sitting = steps_of(monkeypatch)
    assert shrink(codes_folder, out, *options, 2) == 0
    assert sitting == [("teacher", 2)]
    assert {path.name for path in out.iterdir()} == MADE
    assert Generator.from_pretrained(out).config.soft_labels


def test_a_rank_that_is_too_high_is_refused_before_a_teacher_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"width": 16, "top_width": 4, "blocks": 1, "base": 16, "code_channels": 6}
    large = make_generator(GeneratorConfig(make_spec(3, 64), "compact", "codes", options, codes=3))
    source = large.save_pretrained(tmp_path / "large")
    sitting = steps_of(monkeypatch)
    options = ["--noise", "--soft-labels", "--epochs", 1, "--rank"]
    assert shrink(source, tmp_path / "out", *options, 1500) == 1
    assert "rank must be an int of 0 to 1024, got 1500" in capsys.readouterr().err
    assert not sitting
    assert not (tmp_path / "out").exists()


def test_two_at_once_in_one_folder_are_kept_apart(
    codes_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, found = tmp_path / "out", list[int | None]()

    def advance(self: Any, record: Any) -> None:
        if record.step == 2 and not found:
            found.append(None)
            found[0] = shrink(codes_folder, out, "--set", "options.width=9", *SLIM[2:])

    monkeypatch.setattr(shrinking.StageBars, "advance", advance)
    assert shrink(codes_folder, out, *SLIM) == 0
    assert found == [1]
    assert f"another process is at work in {out}: wait for it or stop it" in capsys.readouterr().err
    assert Generator.from_pretrained(out).config.options["width"] == 8


@pytest.mark.parametrize("options", [SLIM, ["--noise", "--soft-labels", "--rank", 3, "--epochs", 2], ["--codes", 30]])
@pytest.mark.parametrize("at", ["save", "notes"])
def test_what_ends_while_the_result_is_written_goes_on_from_what_was_trained(
    at: str, options: list[Any], codes_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"

    def ended(*args: Any, **rest: Any) -> None:
        (out / ".model.safetensors.7.tmp").touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def killed(*args: Any, **rest: Any) -> None:
        raise KeyboardInterrupt

    steps = steps_of(monkeypatch)
    with monkeypatch.context() as patch:
        if at == "save":
            patch.setattr(Generator, "save_pretrained", ended)
        else:
            patch.setattr(shrinking, "write_json", killed)
        assert shrink(codes_folder, out, *options) == (1 if at == "save" else 130)
    trained = len(steps)
    assert shrink(codes_folder, out, *options) == 0
    assert len(steps) == trained
    assert {path.name for path in out.iterdir()} == MADE
    assert shrink(codes_folder, out, *options) == 1  # it is whole now


def test_an_unfinished_folder_with_something_else_in_it_is_refused(codes_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / shrinking.UNFINISHED).touch()
    (out / "README.md").touch()
    assert shrink(codes_folder, out, "--codes", 30) == 1
    assert {path.name for path in out.iterdir()} == {shrinking.UNFINISHED, "README.md"}


def test_a_tilde_that_the_shell_left_in_an_option_is_the_home(
    codes_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["shrink", str(codes_folder), "--codes", "30", "--out=~/small", "--device", "cpu"]) == 0
    assert {path.name for path in (tmp_path / "small").iterdir()} == MADE
