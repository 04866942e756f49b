"""The command line, run in this process where that is enough and as a real process where signals matter."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dim_data import Generator, __version__
from dim_data.cli import commands, main, shrinking
from dim_data.cli.values import read_evaluations
from dim_data.distillation import candidates
from dim_data.hub import Accuracy

TINY = ["--set", "options.width=8", "--set", "options.top_width=4", "--set", "options.blocks=1"]
QUICK = [*TINY, "--set", "reconstruction.steps=4", "--set", "matching.steps=4", "--set", "pool.ages=2"]
QUICK += ["--set", "selection.checkpoints=0", "--device", "cpu"]
ENDLESS = [*TINY, "--set", "reconstruction.steps=100000", "--set", "pool.ages=0", "--device", "cpu"]


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    arrays = {}
    for split in ("train", "test"):
        arrays[f"{split}_labels"] = np.array(["class0", "class1", "class2"] * 20)
        arrays[f"{split}_images"] = rng.integers(0, 255, (60, 28, 28), np.uint8)
    np.savez(tmp_path / "dots.npz", **arrays)
    return tmp_path / "dots.npz"


def run(*arguments: object) -> int:
    return main([str(a) for a in arguments])


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "dim_data.cli.commands", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_set_is_distilled_described_shown_and_evaluated(
    npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert run("distill", npz, "--out", out, *QUICK, "--json") == 0
    made = json.loads(capsys.readouterr().out)
    folder = out / "generator"
    assert made["folder"] == str(folder)
    assert made["bytes"] == (folder / "model.safetensors").stat().st_size
    assert made["codes"] == 60
    assert made["training"]["config"]["reconstruction"]["steps"] == 4

    assert run("info", folder, "--json") == 0
    assert json.loads(capsys.readouterr().out) == made
    assert run("info", folder) == 0
    text = capsys.readouterr().out
    assert "28x28 grey, as dots" in text
    assert "codes, 60 stored" in text

    assert run("preview", folder, "--out", tmp_path / "p.png", "--columns", 4, "--scale", 1) == 0
    assert Image.open(tmp_path / "p.png").size == (4 * 30 - 2, 3 * 30 - 2)
    capsys.readouterr()

    arguments = ["evaluate", folder, "--test", npz, "--ipc", 1, "--epochs", 2, "--seeds", 0, 1, "--device", "cpu"]
    assert run(*arguments, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert len(result["accuracies"]) == 2
    assert result["test_images"] == 60
    assert result["mean"] == pytest.approx(sum(result["accuracies"]) / 2)
    kept = tmp_path / "kept.pt"
    assert run(*arguments, "--checkpoint", kept) == 0
    assert "convnet3, recipe tuned, ipc 1" in capsys.readouterr().out
    assert not kept.exists()
    kept.write_text("something else")
    assert run(*arguments, "--checkpoint", kept) == 1
    assert "kept.pt cannot be resumed" in capsys.readouterr().err
    assert kept.read_text() == "something else"


def test_a_run_of_another_config_is_refused_and_overwritten_on_request(
    npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert run("distill", npz, "--out", out, *QUICK) == 0
    assert "DistilledDataset(" in capsys.readouterr().out
    assert run("distill", npz, "--out", out, *QUICK, "--seed", 1) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert run("distill", npz, "--out", out, *QUICK, "--no-resume") == 1
    assert "holds this run already" in capsys.readouterr().err
    assert run("distill", npz, "--out", out, *QUICK, "--seed", 1, "--overwrite") == 0
    assert json.loads((out / "run.json").read_text())["config"]["seed"] == 1


def test_mirror_lets_flips_augment_a_set_of_ones_own(npz: Path, tmp_path: Path) -> None:
    for flags, mirror in (((), False), (("--mirror",), True)):
        out = tmp_path / f"run{mirror}"
        assert run("distill", npz, "--out", out, *QUICK, *flags) == 0
        assert Generator.from_pretrained(out / "generator").spec.mirror is mirror


def test_a_time_budget_stops_with_its_own_exit_code_and_the_same_command_resumes(
    npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    steps = []
    for _ in range(2):
        assert run("distill", npz, "--out", out, *ENDLESS, "--max-minutes", 0.01) == 3
        sentence = capsys.readouterr().err
        assert "out of time in stage 'reconstruction'" in sentence
        assert "the same call resumes it" in sentence
        steps.append(int(sentence.split("step ")[1].split(" of")[0]))
    assert steps[1] > steps[0]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for another process")
def test_ctrl_c_saves(npz: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = start("distill", npz, "--out", out, *ENDLESS)
    metrics = out / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not (metrics.exists() and "reconstruction" in metrics.read_text()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped in stage 'reconstruction'" in errors
    assert "Traceback" not in errors
    assert (out / "checkpoint.pt").is_file()


def at_step(monkeypatch: pytest.MonkeyPatch, bar: str, step: int, number: signal.Signals) -> None:
    """Send this process a signal at a step."""
    original, counted = getattr(commands, bar).advance, iter(range(1, 10**9))

    def advance(self: Any, record: Any) -> None:
        if next(counted) == step:
            os.kill(os.getpid(), number)
        original(self, record)

    monkeypatch.setattr(getattr(commands, bar), "advance", advance)


SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_an_interrupted_evaluation_saves_and_goes_on(
    number: signal.Signals, code: int, noise_folder: Path, npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "kept.pt"
    arguments = ["evaluate", noise_folder, "--test", npz, "--ipc", 1, "--epochs", 4, "--seeds", 0, 1, "--json"]
    arguments += ["--classifier", "resnet10_half", "--device", "cpu"]
    assert run(*arguments) == 0
    unbroken = json.loads(capsys.readouterr().out)
    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, "SeedBar", 6, number)
        assert run(*arguments, "--checkpoint", kept) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "stopped in seed 1, step 2 of 4; saved in" in captured.err
    assert kept.is_file()
    seen: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commands.SeedBar, "advance", lambda self, record: seen.append((record.seed, record.step)))
        assert run(*arguments, "--checkpoint", kept) == 0
    assert seen == [(1, 3), (1, 4)]
    assert json.loads(capsys.readouterr().out)["accuracies"] == unbroken["accuracies"]
    assert not kept.exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
def test_an_evaluation_that_keeps_nothing_stops_at_once(
    noise_folder: Path, npz: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    at_step(monkeypatch, "SeedBar", 2, signal.SIGINT)
    assert run("evaluate", noise_folder, "--test", npz, "--ipc", 1, "--epochs", 9, "--device", "cpu") == 130
    assert capsys.readouterr() == ("", "dim-data: stopped by Ctrl-C\n")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_an_interrupted_run_says_by_which_signal(
    number: signal.Signals,
    code: int,
    npz: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at_step(monkeypatch, "StageBars", 3, number)
    before = [signal.getsignal(each) for each, _ in SIGNALS]
    assert run("distill", npz, "--out", tmp_path / "run", *ENDLESS) == code
    assert "stopped in stage 'reconstruction', step 3 of" in capsys.readouterr().err
    assert [signal.getsignal(each) for each, _ in SIGNALS] == before
    assert (tmp_path / "run" / "checkpoint.pt").is_file()


UNWRITABLE = [
    (
        ["evaluate", "NOISE", "--test", "NPZ", "--ipc", "1", "--checkpoint", "FILE/kept.pt"],
        "is no folder; make it first",
    ),
    (["evaluate", "NOISE", "--test", "NPZ", "--ipc", "1", "--checkpoint", "NOISE"], "it is a folder; name a file"),
    (["shrink", "CODES", "--noise", "--soft-labels", "--out", "FILE/small"], "is a file; choose another folder"),
    (["shrink", "CODES", "--noise", "--soft-labels", "--out", "FILE"], "FILE is not an empty folder"),
    (["preview", "nonsense", "--out", "missing/p.png"], "is no folder; make it first"),
    (["preview", "nonsense", "--out", "NOISE"], "it is a folder; name a file"),
    (["preview", "nonsense", "--out", "/dev/null"], "it is a device or a pipe; name a file"),
    (["distill", "nowhere", "--out", "FILE"], "is a file; choose another folder"),
    (["distill", "nowhere", "--out", "FILE/run"], "is a file; choose another folder"),
    (["pull", "user/repo", "--out", "FILE"], "is a file; choose another folder"),
]


@pytest.mark.parametrize(("arguments", "sentence"), UNWRITABLE)
def test_what_cannot_be_written_is_found_out_first(
    arguments: list[str],
    sentence: str,
    codes_folder: Path,
    noise_folder: Path,
    npz: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "FILE").touch()
    for place, work in ((shrinking, "train_teacher"), (commands, "pull"), (commands, "load_real")):
        if "--test" not in arguments:
            monkeypatch.setattr(place, work, lambda *_, **__: pytest.fail("it began"))
    monkeypatch.setattr(commands.SeedBar, "advance", lambda *_: pytest.fail("it began"))
    monkeypatch.chdir(tmp_path)
    places = {"CODES": codes_folder, "NOISE": noise_folder, "NPZ": npz}
    before = sorted(tmp_path.rglob("*"))
    assert run(*(places.get(argument, argument) for argument in arguments)) == 1
    captured = capsys.readouterr()
    assert sentence in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (MemoryError(), "dim-data: not enough memory\n"),
        (MemoryError("Unable to allocate 9. GiB"), "dim-data: not enough memory: Unable to allocate 9. GiB\n"),
        (RuntimeError("DefaultCPUAllocator: can't allocate"), "dim-data: DefaultCPUAllocator: can't allocate\n"),
        (BrokenPipeError(32, "Broken pipe", "a connection"), "dim-data: [Errno 32] Broken pipe: 'a connection'\n"),
    ],
)
def test_what_fails_ends_with_a_sentence(
    error: Exception, sentence: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(Generator, "from_pretrained", fail)
    assert run("info", "cifar10") == 1
    assert capsys.readouterr() == ("", sentence)


def test_a_picture_that_is_not_drawn_is_said_on_a_line(
    npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ValueError("Key backend: 'module://nowhere' is not a valid value")

    monkeypatch.setattr(candidates, "save_curves", fail)
    assert run("distill", npz, "--out", tmp_path / "run", *QUICK, "--set", "matching.steps=0") == 0
    path = tmp_path / "run" / "curves.png"
    sentence = (
        f"dim-data: warning: {path} was not drawn: ValueError: Key backend: 'module://nowhere' is not a valid value"
    )
    assert capsys.readouterr().err.splitlines() == [sentence]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["info", "nonsense"], "unknown source 'nonsense': a source is a folder with config.json"),
        (["evaluate", "nonsense"], "unknown source 'nonsense'"),
        (["preview", "nonsense"], "unknown source 'nonsense'"),
        (["distill", "nowhere", "--out", "x"], "no data at 'nowhere': give an image folder, an .npz file"),
        (["distill", "cifar10", "--out", "x"], "say where the files of 'cifar10' are"),
    ],
)
def test_what_cannot_be_done_ends_with_a_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DIM_DATA_ROOT", raising=False)
    assert run(*arguments) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("dim-data: ")
    assert sentence in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("depth=3", "--set wants NAME=VALUE, got 'depth=3'; names: adversarial.batch_size,"),
        ("seed", "--set wants NAME=VALUE, got 'seed'"),
        ("options=3", "--set wants NAME=VALUE, got 'options=3'"),
        ("seed.x=3", "--set wants NAME=VALUE, got 'seed.x=3'"),
        ("matching=3", "--set wants NAME=VALUE, got 'matching=3'"),
        ("matching.depth=3", "got 'matching.depth=3'; names: adversarial.batch_size, "),
        ("options.=3", "--set wants NAME=VALUE, got 'options.=3'"),
        ("matching_steps=3", "source, options.OPTION"),
        ("reconstruction.steps=0", "reconstruction.steps must be a positive int, got 0"),
        ("pool.classifiers=convnet3,vgg", "pool.classifiers has an unknown name 'vgg'"),
        ("adversarial.steps=7", "adversarial.* is set, and would not be read: first is 'reconstruction'"),
        ("options.depth=3", "architecture 'compact' has no option 'depth'"),
        ("labels.soft=maybe", "labels.soft must be True or False, got 'maybe'"),
    ],
)
def test_bad_settings_end_with_a_sentence(
    npz: Path, tmp_path: Path, setting: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("distill", npz, "--out", tmp_path / "run", "--set", setting) == 1
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_several_stated_accuracies_want_no_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("evaluate", "cifar10", "--checkpoint", tmp_path / "kept.pt") == 1
    assert "--checkpoint keeps one evaluation, and the card states" in capsys.readouterr().err


def test_evaluating_without_test_images_says_what_is_missing(
    noise_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DIM_DATA_ROOT", raising=False)
    assert run("evaluate", noise_folder) == 1
    assert "real test images are needed: --test PATH (an .npz or an image folder)" in capsys.readouterr().err


def test_a_missing_gpu_is_said(noise_folder: Path, npz: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert run("evaluate", noise_folder, "--test", npz, "--device", "cuda") == 1
    assert "torch finds no GPU here; pass device='cpu'" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["demo", "distill", "evaluate", "preview", "info", "shrink", "pull", "push"])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run(command, "--help")
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "example" in text
    assert f"dim-data {command}" in text


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["train"],
        ["evaluate"],
        ["distill", "x"],
        ["evaluate", "x", "--ipc", "0"],
        ["info", "x", "y"],
        ["shrink", "x", "--out", "y", "--noise", "--codes", "9"],
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    assert stop.value.code == 2
    assert "usage: dim-data" in capsys.readouterr().err


def test_a_generator_is_shrunk(codes_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (codes_folder / "training_config.json").write_text('{"minutes": 3}')
    whole, small, noise = Generator.from_pretrained(codes_folder), tmp_path / "small", tmp_path / "noise"
    assert run("shrink", codes_folder, "--codes", 30, "--seed", 4, "--dtype", "float32", "--out", small) == 0
    size = (small / "model.safetensors").stat().st_size
    assert capsys.readouterr().out == f"{small}: {size / 1e6:.2f} MB, codes, 30 stored\n"
    assert torch.equal(Generator.from_pretrained(small).bank.codes, whole.keep_codes(30, seed=4).bank.codes)
    assert run("shrink", small, "--noise", "--rank", 3, "--out", noise, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["source"], facts["rank"], facts["codes"]) == ("noise", 3, 0)
    assert facts["training"] == {"minutes": 3, "derived": "keep_codes(30, seed=4), then forget_codes(rank=3)"}
    means = whole.keep_codes(30, seed=4).forget_codes(3).source.means
    assert torch.allclose(Generator.from_pretrained(noise).source.means, means, atol=0.02)  # eight bits

    assert run("shrink", codes_folder, "--dtype", "int8", "--out", tmp_path / "same", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["codes"] == 120
    assert facts["training"] == {"minutes": 3}
    assert facts["bytes"] < (codes_folder / "model.safetensors").stat().st_size


def test_a_generator_is_shrunk_to_four_bits_and_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--dtype", "int4", "--no-soft-labels", "--json"]
    assert run("shrink", "cifar10", "--codes", 50, *options, "--out", tmp_path / "small") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["codes"], facts["soft_labels"]) == (50, False)
    assert facts["training"]["derived"].endswith("keep_codes(50, seed=0, soft_labels=False)")
    assert facts["bytes"] < 0.6 * facts["parameters"]
    assert run("shrink", "cifar10", *options, "--out", tmp_path / "all") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["codes"], facts["soft_labels"]) == (50_000, False)


def test_a_generator_gets_a_faster_decoder_in_several_sittings(
    codes_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = Generator.from_pretrained(codes_folder), tmp_path / "fast"
    words = ["shrink", codes_folder, "--set", "options.width=8", "--steps", 6, "--epochs", 1, "--out", out]
    assert run(*words, "--set", "options.code_channels=7", "--device", "cpu") == 1
    assert "change the latents" in capsys.readouterr().err
    assert run(*words, "--set", "matching.steps=7", "--device", "cpu") == 1
    assert (
        "--set wants options.NAME=N here, such as options.width=80, got 'matching.steps=7'" in capsys.readouterr().err
    )
    assert not out.exists()

    slim = shrinking.slim_decoder
    stop = {"should_stop": lambda: True}
    monkeypatch.setattr(shrinking, "slim_decoder", lambda *args, **rest: slim(*args, **{**rest, **stop}))
    assert run(*words, "--device", "cpu") == 3
    assert "step 1 of 6" in capsys.readouterr().err
    assert {path.name for path in out.iterdir()} == {"teacher.pt", "slimming.pt"}
    assert run("shrink", codes_folder, "--out", out) == 1  # other work
    capsys.readouterr()
    stop.clear()
    assert run(*words, "--device", "cpu", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    fast = Generator.from_pretrained(out)
    assert facts["training"]["derived"].startswith("slim_decoder({'width': 8}, [train_teacher(epochs=1, seed=0)]")
    assert fast.config.options == {**whole.config.options, "width": 8}
    assert torch.equal(fast.bank.codes, whole.bank.codes)
    assert {path.name for path in out.iterdir()} == {"config.json", "model.safetensors", "training_config.json"}


def test_shrinking_loses_nothing(
    codes_folder: Path, noise_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (noise_folder / "model.safetensors").read_bytes()
    assert run("shrink", codes_folder, "--codes", 30, "--out", noise_folder) == 1
    assert f"{noise_folder} is not an empty folder: choose another --out" in capsys.readouterr().err
    assert (noise_folder / "model.safetensors").read_bytes() == before
    for options, sentence in (
        (["--codes", 121], "count must be in [3, 120], got 121"),
        (["--codes", 2], "count must be in [3, 120], got 2"),
    ):
        assert run("shrink", codes_folder, *options, "--out", tmp_path / "new") == 1
        assert sentence in capsys.readouterr().err
    assert run("shrink", noise_folder, "--noise", "--out", tmp_path / "new") == 1
    assert "there are no codes to forget" in capsys.readouterr().err
    for options in (["--codes", 30], ["--no-soft-labels"]):
        assert run("shrink", noise_folder, *options, "--out", tmp_path / "new") == 1
        assert "--codes and --no-soft-labels are for stored codes" in capsys.readouterr().err
    for options in (["--rank", 3], ["--epochs", 2], ["--steps", 2], ["--rank", 3, "--codes", 30]):
        assert run("shrink", codes_folder, *options, "--out", tmp_path / "new") == 1
        assert f"{options[0]} would not be read: dim-data shrink --help says" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_pulled_copy_holds_nothing_of_another(
    codes_folder: Path,
    noise_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (codes_folder / "README.md").write_text("# Of codes")
    (codes_folder / "training_config.json").write_text('{"minutes": 77}')
    folders = {"me/codes": codes_folder, "me/noise": noise_folder}
    monkeypatch.setattr(commands, "pull", lambda repo, revision: (folders[repo], "c" * 40))
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    (out / "README.md").write_text("# My project")
    assert run("pull", "me/noise", "--out", out) == 0
    assert (out / "README.md").read_text() == "# My project"  # of no generator
    assert run("pull", "me/codes", "--out", out) == 0
    assert (out / "README.md").read_text() == "# Of codes"
    assert run("pull", "me/noise", "--out", out) == 0
    assert {path.name for path in out.iterdir()} == {"config.json", "model.safetensors", "notes.txt"}
    capsys.readouterr()
    assert run("info", out, "--json") == 0
    assert json.loads(capsys.readouterr().out)["training"] == {}
    theirs = tmp_path / "project"
    theirs.mkdir()
    (theirs / "README.md").write_text("# My project")
    (theirs / "config.json").write_text("{}")
    assert run("pull", "me/codes", "--out", theirs) == 1
    assert f"{theirs} has config.json and README.md of something else: choose another --out" in capsys.readouterr().err
    assert {path.name: path.read_text() for path in theirs.iterdir()} == {
        "README.md": "# My project",
        "config.json": "{}",
    }


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("--version")
    assert capsys.readouterr().out == f"dim-data {__version__}\n"


@pytest.mark.parametrize("source", [[], ["cifar10_noise"]])
def test_the_demo_trains_on_a_bundled_generator(
    source: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DIM_DATA_ROOT", raising=False)
    assert run("demo", *source, "--epochs", 2, "--device", "cpu") == 0
    captured = capsys.readouterr()
    assert "training ConvNet-3 on pictures from a generator of " in captured.out
    assert "accuracy on 1000 real test images: " in captured.out
    assert "after 200 synthetic ones" in captured.out


def test_the_demo_says_what_test_images_it_lacks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DIM_DATA_ROOT", raising=False)
    assert run("demo", "mnist_noise", "--device", "cpu") == 1
    assert "test images are needed: --test PATH (an .npz or an image folder), or --data-root" in capsys.readouterr().err


def test_photos_are_distilled_and_tested_at_a_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    for index in range(12):
        (tmp_path / "photos" / "ab"[index % 2]).mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(rng.integers(0, 255, (40, 50 + index, 3), np.uint8))
        picture.save(tmp_path / "photos" / "ab"[index % 2] / f"{index}.jpg")
    out = tmp_path / "run"
    assert run("distill", tmp_path / "photos", "--out", out, *QUICK) == 1
    assert "but images must be square; size=40 (--size 40) resizes and crops" in capsys.readouterr().err
    assert run("distill", tmp_path / "photos", "--out", out, *QUICK, "--size", 30) == 1
    assert "size=30 cannot be used: it must be one of 28, 32, 36 ... 128 pixels" in capsys.readouterr().err
    assert run("distill", tmp_path / "photos", "--out", out, *QUICK, "--size", 32) == 0
    evaluation = ["evaluate", out / "generator", "--test", tmp_path / "photos", "--ipc", 1, "--epochs", 1, "--seeds", 0]
    assert run(*evaluation, "--device", "cpu") == 1
    assert "but photos images are 32x32; size=32 (--size 32)" in capsys.readouterr().err
    assert run(*evaluation, "--device", "cpu", "--size", 32) == 0
    assert "convnet3, recipe tuned, ipc 1" in capsys.readouterr().out


def test_a_picture_is_written_where_a_link_leads(codes_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "real.png").write_bytes(b"old")
    (tmp_path / "link.png").symlink_to(tmp_path / "real.png")
    assert run("preview", codes_folder, "--out", tmp_path / "link.png") == 0
    assert (tmp_path / "link.png").is_symlink()
    assert (tmp_path / "real.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="needs /dev/stdout")
def test_a_device_is_no_picture(codes_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("preview", codes_folder, "--out", "/dev/stdout") == 1
    assert "cannot write to '/dev/stdout': it is a device or a pipe; name a file" in capsys.readouterr().err


def test_true_as_python_says_it_is_true(npz: Path, tmp_path: Path) -> None:
    settings = [*QUICK, "--set", "labels.soft=True"]
    assert run("distill", npz, "--out", tmp_path / "run", *settings) == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["config"]["labels"]["soft"] is True


def test_what_was_tested_on_goes_to_the_card(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIM_DATA_ROOT", "")
    options = ["--ipc", 1, "--epochs", 2, "--seeds", 0, "--device", "cpu", "--json"]
    assert run("evaluate", "cifar10_small", *options) == 0
    captured = capsys.readouterr()
    assert "testing on the bundled 1000 real images" in captured.err
    (tmp_path / "result.json").write_text(captured.out)
    (found,) = read_evaluations(tmp_path / "result.json")
    assert (
        found.tested_on == json.loads(captured.out)["tested_on"] == "1,000 of the 10,000 test images, which are bundled"
    )
    assert found.tested_on in str(found)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"accuracies": [79.2]}, "accuracies must be shares from 0 to 1, one for each seed"),
        ({"accuracies": []}, "one for each seed"),
        ({"accuracies": [0.5, 0.6]}, "one for each seed"),
        ({"accuracies": 0.5}, "TypeError"),
    ],
)
def test_what_no_evaluation_says_is_not_pushed(change: dict[str, Any], reason: str, tmp_path: Path) -> None:
    told = {"classifier": "convnet3", "recipe": "tuned", "ipc": 1, "epochs": 2, "seeds": [0], "accuracies": [0.5]}
    told |= {"images_shown": 20, "seconds": 1.0}
    (tmp_path / "result.json").write_text(json.dumps(told))
    assert read_evaluations(tmp_path / "result.json")[0].mean == 0.5
    (tmp_path / "result.json").write_text(json.dumps({**told, **change}))
    with pytest.raises(ValueError, match=rf"result.json is not what `dim-data evaluate --json` prints: .*{reason}"):
        read_evaluations(tmp_path / "result.json")


def test_measuring_nothing_that_is_stated_is_no_success(
    codes_folder: Path, npz: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Accuracy("my_own_net", "tuned", 1, 2, (0,), 0.5, 0.0)
    monkeypatch.setattr(commands, "stated_accuracies", lambda folder: (other,))
    assert run("evaluate", codes_folder, "--test", npz, "--size", 32, "--device", "cpu") == 1
    assert "passed over, no such classifier or recipe here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["preview", "x", "--columns", "abc"], "argument --columns: must be a whole number of at least 1, got abc"),
        (["preview", "x", "--columns", "0"], "argument --columns: must be a whole number of at least 1, got 0"),
        (["evaluate", "x", "--seeds", "9" * 20], "argument --seeds: must be a whole number of 64 bits, got 999"),
        (["distill", "x", "--out", "y", "--max-minutes", "nan"], "argument --max-minutes: must be a number of minutes"),
    ],
)
def test_numbers_that_cannot_be_meant_are_wrong_usage(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(*arguments)
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err


def test_a_run_does_not_lie_among_its_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ant", "bee"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32), "red").save(tmp_path / "photos" / name / "0.png")
    monkeypatch.chdir(tmp_path / "photos")
    assert run("distill", ".", "--out", "run") == 1
    assert "run lies in ., where it would be read as a class of images" in capsys.readouterr().err
    assert not (tmp_path / "photos" / "run").exists()
