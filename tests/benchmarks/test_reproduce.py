"""A cell is measured, resumed and found missing; a generator is refined."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

import reproduce
from accuracy import cells, machines, measure, missing
from accuracy.members import images_of
from accuracy.tables import label
from conftest import SMALL_CLASSIFIERS
from dim_data import Generator, GeneratorConfig
from dim_data.distillation import learning
from dim_data.images import LabelledImages
from dim_data.images.specs import KNOWN_SPECS
from dim_data.networks import CLASSIFIERS, ConvNet
from dim_data.protocol import evaluation
from ranks import run_ranks


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 60), ("test", 40)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 32, 32, 3), np.uint8)
        arrays[f"{split}_labels"] = np.arange(count) % 10
    np.savez(tmp_path / "cifar10.npz", **arrays)
    options = {"width": 8, "top_width": 4, "blocks": 1}
    generator = Generator(GeneratorConfig(KNOWN_SPECS["cifar10"], "compact", "noise", options))
    generator.save_pretrained(tmp_path / "tiny")
    return tmp_path


@pytest.mark.usefixtures("small_classifiers")
@pytest.mark.parametrize("row", ["generator", "refreshed", "before", "real", "stored"])
def test_a_cell_is_written_and_resumed(root: Path, row: str) -> None:
    arguments = ["cifar10", "--row", row, "--source", str(root / "tiny"), "--ipc", "1", "--epochs", "2"]
    arguments += ["--data-root", str(root), "--out", str(root / "results"), "--device", "cpu", "--seeds"]
    path = reproduce.main([*arguments, "0"])
    first = json.loads(path.read_text())
    assert reproduce.main([*arguments, "0", "1"]) == path
    second = json.loads(path.read_text())
    assert second["runs"]["0"] == first["runs"]["0"]
    assert set(second["runs"]) == {"0", "1"}
    assert second["images_shown"] == 20
    assert second.get("refresh") == (0.1 if row == "refreshed" else None)
    assert ("tiny_0.1-" in path.name) == (row == "refreshed")
    assert label(second)
    run = second["runs"]["1"]
    assert 0 <= run["accuracy"] <= 1
    assert run["command"].startswith("python benchmarks/reproduce.py cifar10 --row")
    assert str(root) + " " not in run["command"].split("--data-root")[1][:20]
    assert run["versions"]["torch"] == torch.__version__


@pytest.mark.usefixtures("small_classifiers")
def test_seeds_of_a_cell_may_be_measured_side_by_side(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["cifar10", "--source", str(root / "tiny"), "--ipc", "1", "--epochs", "1"]
    arguments += ["--data-root", str(root), "--out", str(root / "results"), "--device", "cpu", "--seeds"]
    original, measured = evaluation.evaluate, []

    def evaluate(*args: Any, seeds: tuple[int], **kwargs: Any) -> Any:
        measured.append(seeds[0])
        if seeds == (0,):  # another process begins and ends meanwhile
            reproduce.main([*arguments, "1"])
        return original(*args, seeds=seeds, **kwargs)

    monkeypatch.setattr(measure, "evaluate", evaluate)
    path = reproduce.main([*arguments, "0", "1"])
    assert set(json.loads(path.read_text())["runs"]) == {"0", "1"}
    assert measured == [0, 1]


@pytest.mark.usefixtures("small_classifiers")
def test_a_cell_that_was_killed_goes_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["cifar10", "--source", str(root / "tiny"), "--ipc", "1", "--epochs", "4", "--seeds", "0"]
    arguments += ["--data-root", str(root), "--device", "cpu", "--out"]
    original, seen = evaluation.evaluate, []

    def evaluate(*args: Any, stop: int, **kwargs: Any) -> Any:
        def note(step: evaluation.ClassifierStep) -> None:
            seen.append(step.step)
            if step.step == stop:
                raise KeyboardInterrupt

        return original(*args, **kwargs, checkpoint_seconds=0, on_step=note)

    first = machines.hardware(torch.device("cpu"))
    monkeypatch.setattr(measure, "evaluate", partial(evaluate, stop=3))
    with pytest.raises(KeyboardInterrupt):
        reproduce.main([*arguments, str(root / "results")])
    assert {path.suffix for path in (root / "results").iterdir()} == {".pt", ".txt"}
    monkeypatch.setattr(measure, "evaluate", partial(evaluate, stop=0))
    monkeypatch.setattr(machines, "hardware", lambda device: f"another {device}")
    path = reproduce.main([*arguments, str(root / "results")])
    assert seen == [1, 2, 3, 4]
    assert list((root / "results").iterdir()) == [path]
    whole = json.loads(reproduce.main([*arguments, str(root / "whole")]).read_text())["runs"]["0"]
    run = json.loads(path.read_text())["runs"]["0"]
    assert run["accuracy"] == whole["accuracy"]
    assert run["hardware"] == f"{first}; another cpu"
    assert whole["hardware"] == "another cpu"


@pytest.mark.usefixtures("small_classifiers")
def test_missing_measures_what_is_missing_cheapest_first(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[list[str]] = []
    original, measured = measure.main, missing.measured
    monkeypatch.setattr(measure, "main", lambda words, ranks: calls.append(words) or original(words, ranks))
    monkeypatch.setattr(missing, "bundled_names", lambda: [str(root / "tiny")])
    monkeypatch.setattr(missing, "measured", lambda cell, folder: measured((*cell[:2], "tiny", *cell[3:]), folder))
    some = ["missing", "--classifiers", "convnet3", "--recipes", "tuned", "soft", "--rows", "generator"]
    some += ["--ipc", "2", "1", "--epochs", "1", "--data-root", str(root), "--device", "cpu"]
    for module in (measure, missing):
        monkeypatch.setattr(module, "RESULTS", root / "results")
    assert reproduce.main([*some, "--list"]) == 6
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[-2:] for line in listed] == [[ipc, seed] for ipc in "12" for seed in "012"]
    assert reproduce.main([*some, "--max-minutes", "0"]) == 6
    assert reproduce.main([*some, "--begun", "--list"]) == 0
    assert calls == []
    assert reproduce.main([*some, "--seeds", "1"]) == 0
    assert [words[words.index("--ipc") + 1] for words in calls] == ["1", "2"]
    assert not any("--out" in words for words in calls)  # the folder would be published with the command
    assert reproduce.main([*some, "--list"]) == 4
    assert reproduce.main([*some, "--begun", "--list", "--recipes", "tuned", "paper"]) == 4
    elsewhere = ["--out", str(root / "elsewhere")]
    assert reproduce.main([*some, *elsewhere, "--ipc", "1", "--seeds", "0"]) == 0
    assert calls[-1][-2:] == elsewhere
    assert len(list((root / "elsewhere").iterdir())) == 1


@pytest.mark.parametrize("words", [["cifar10"], ["missing", "--epochs", "1"], ["refine", "cifar10", "--out", "new"]])
def test_without_the_real_images_one_line_says_where_to_name_them(words: list[str], tmp_path: Path) -> None:
    script, environment = Path(reproduce.__file__).resolve(), {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("DIM_DATA_ROOT", None)
    words = [sys.executable, str(script), *words]
    done = subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("reproduce.py: say where")
    assert "--data-root, or DIM_DATA_ROOT" in line


def test_published_commands_still_run_and_name_no_folder_of_the_machine_they_ran_on() -> None:
    files = cells.load_results(cells.RESULTS)
    commands = [run["command"].split() for file in files for run in file["runs"].values()]
    assert len(commands) >= len(files) > 0
    assert Path(reproduce.__file__).match("benchmarks/reproduce.py")
    for words in commands:
        assert not [word for word in words if Path(word).is_absolute()]
        assert words[:2] == ["python", "benchmarks/reproduce.py"]
        assert measure.read_arguments(words[2:]).dataset == words[2]


@pytest.mark.usefixtures("small_classifiers")
@pytest.mark.parametrize("labelled", [True, False])
def test_a_generator_is_refined(labelled: bool, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec, options = KNOWN_SPECS["cifar10"], {"width": 8, "top_width": 4, "blocks": 1}
    generator = Generator(GeneratorConfig(spec, "compact", "codes", options, codes=60))
    latents = torch.rand(60, *generator.decoder.latent_shape) * 2 - 1
    labels = torch.arange(60) % 10
    generator.store(latents, labels, torch.eye(10)[labels] if labelled else None).save_pretrained(root / "codes")
    arguments = ["refine", str(root / "codes"), "--codes", "30", "--classifiers", "convnet3", "resnet10"]
    arguments += ["--data-root", str(root), "--ipc", "1", "--epochs", "2", "--looks", "2", "--device", "cpu"]
    arguments += ["--out", str(root / "refined")]
    folder = reproduce.main(arguments)
    kept, refined = Generator.from_pretrained(root / "codes").keep_codes(30), Generator.from_pretrained(folder)
    assert refined.bank.counts.tolist() == kept.bank.counts.tolist() == [3] * 10
    changed = (refined.bank.unpack(refined.bank.codes) != kept.bank.unpack(kept.bank.codes)).flatten(1).float().mean(1)
    assert 0 < changed.min() <= changed.max() < 0.3
    derived = json.loads((folder / "training_config.json").read_text())["derived"]
    after = ", then relabel_codes(temperature=3) by them" if labelled else ""
    assert derived == f"keep_codes(30), then refine_codes(looks=2) under ['convnet3', 'resnet10']{after}"
    assert refined.config.soft_labels == labelled
    if labelled:
        likeliest = refined.bank.opinions(torch.arange(30)).amax(1)
        assert likeliest.mean() < 0.8  # the old ones were sure
        reproduce.main([*arguments, "--temperature", "0"])
        assert torch.equal(Generator.from_pretrained(folder).bank.soft, kept.bank.soft)
        reproduce.main(arguments)
    files = {name: (folder / name).read_bytes() for name in ("classifier0_convnet3.safetensors", "model.safetensors")}
    (folder / "classifier1_resnet10.safetensors").unlink()
    capsys.readouterr()
    reproduce.main(arguments)
    assert {name: (folder / name).read_bytes() for name in files} == files  # trained and refined alike
    with pytest.raises(ValueError, match="does not store the code of every training image"):
        reproduce.main(["refine", str(folder), *arguments[2:]])


def measure_some(arguments: list[str]) -> list[int]:
    """The seeds that this rank measures."""
    CLASSIFIERS.update(SMALL_CLASSIFIERS)
    dist.init_process_group("gloo")
    original, measured = measure.evaluate, []

    def evaluate(*args: Any, seeds: tuple[int], **kwargs: Any) -> Any:
        measured.append(seeds[0])
        return original(*args, seeds=seeds, **kwargs)

    measure.evaluate = evaluate
    reproduce.main(arguments)
    dist.barrier()
    return measured


def test_ranks_share_the_seeds_of_a_cell(root: Path) -> None:
    arguments = ["cifar10", "--source", str(root / "tiny"), "--ipc", "1", "--epochs", "2"]
    arguments += ["--data-root", str(root), "--out", str(root / "results"), "--device", "cpu", "--seeds", *"0123"]
    first, second = run_ranks(measure_some, 2, arguments)
    assert sorted(first + second) == [0, 1, 2, 3]
    (path,) = (root / "results").iterdir()
    assert set(json.loads(path.read_text())["runs"]) == set("0123")


def test_the_images_of_the_codes_that_were_kept_are_found() -> None:
    spec, options = KNOWN_SPECS["cifar10"], {"width": 8, "top_width": 4, "blocks": 1}
    generator = Generator(GeneratorConfig(spec, "compact", "codes", options, codes=60))
    latents = torch.where(torch.rand(60, *generator.decoder.latent_shape) < 0.5, -1.0, 1.0)
    stored = generator.store(latents, torch.arange(60) % 10)
    with torch.no_grad():
        for parameter in stored.decoder.parameters():
            parameter.mul_(3)  # so that pictures differ
    shuffled = torch.randperm(60)
    images = LabelledImages(stored.decode(shuffled), stored.bank.labels[shuffled], spec)
    everything = images_of(stored, images)
    assert everything is not None
    assert torch.equal(everything.labels, stored.bank.labels)
    kept = stored.keep_codes(33)  # three of each class
    found = images_of(kept, LabelledImages(stored.decode(torch.arange(60)), stored.bank.labels, spec))
    assert found is not None
    assert torch.equal(found.images, kept.decode(torch.arange(30)))
    assert images_of(kept, images) is None  # other images stand where theirs should
    assert images_of(kept, images.subset(images.labels < 9)) is None


@pytest.mark.usefixtures("small_classifiers")
@pytest.mark.parametrize("classifier", ["convnet3", "of a generator"])
def test_a_prior_is_learned_from_a_generators_codes(
    classifier: str, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning, "ENCODER_PASSES", 1)
    spec, options = KNOWN_SPECS["cifar10"], {"width": 8, "top_width": 4, "blocks": 1, "code_channels": 2}
    generator = Generator(GeneratorConfig(spec, "compact", "codes", options, codes=60))
    labels = torch.arange(60) % 10
    stored = generator.store(torch.rand(60, *generator.decoder.latent_shape) * 2 - 1, labels)
    stored.save_pretrained(root / "codes")
    stored.forget_codes(2, teacher=ConvNet(spec)).save_pretrained(root / "taught")
    arguments = ["prior", str(root / "codes"), "--data-root", str(root), "--ipc", "1", "--classifier-epochs", "2"]
    arguments += ["--classifier", classifier if classifier == "convnet3" else str(root / "taught"), "--device", "cpu"]
    arguments += ["--width", "16", "--layers", "1", "--hidden", "8", "--epochs", "2", "--out", str(root / "learned")]
    arguments += ["--soft-labels"] if classifier != "convnet3" else []
    learned = Generator.from_pretrained(reproduce.main(arguments))
    assert learned.config.prior is not None
    assert learned.config.prior.width == 16
    assert learned.config.soft_labels == (classifier != "convnet3")
    facts = json.loads((root / "learned" / "generator" / "training_config.json").read_text())
    assert facts["prior"]["epochs"] == 2
    looks = [line.split() for line in (root / "learned" / "looks.txt").read_text().splitlines()]
    assert facts["held_out_bits"] == min(float(bits) for bits, _ in looks) > 0
    assert facts["minutes"] == pytest.approx(sum(float(seconds) for _, seconds in looks) / 60, abs=0.06)
    assert "held_out_bits" in capsys.readouterr().out
    assert (root / "learned" / "classifier_convnet3.safetensors").exists() == (classifier == "convnet3")
    with pytest.raises(ValueError, match="holds no teacher"):
        reproduce.main([*arguments, "--classifier", str(root / "codes")])
