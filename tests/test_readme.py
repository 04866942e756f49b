"""What the pages for readers promise: their code runs, their commands parse, their links lead somewhere."""

from __future__ import annotations

import json
import re
import shlex
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets, transforms

import hub_server
import speed
from accuracy import measure, missing, prior, refine
from dim_data import DistillConfig, DistilledDataset, Generator, bundled_names, distillation, protocol
from dim_data.cli.arguments import build_parser
from dim_data.cli.commands import main
from dim_data.cli.settings import parse_settings
from dim_data.networks import CLASSIFIERS, ConvNet

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "CONTRIBUTING.md", "benchmarks/README.md")
COMMANDS: dict[tuple[str, ...], Callable[[list[str]], Any]] = {
    ("python", "benchmarks/reproduce.py", "missing"): missing.read_arguments,
    ("python", "benchmarks/reproduce.py", "refine"): refine.read_arguments,
    ("python", "benchmarks/reproduce.py", "prior"): prior.read_arguments,
    ("python", "benchmarks/reproduce.py"): measure.read_arguments,
    ("python", "benchmarks/speed.py"): speed.read_arguments,
}
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str, language: str) -> list[tuple[str, str]]:
    """(the heading above it, its text) of each code block in a language."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        (re.findall(r"^#+ (.+)$", text[: found.start()], re.MULTILINE)[-1], found[2])
        for found in BLOCK.finditer(text)
        if found[1] == language
    ]


def lines(page: str) -> list[str]:
    """Each shell command that a page prints, without its comment."""
    text = "".join(text for _, text in blocks(page, "sh")).replace("\\\n", " ")
    return [line.split(" #")[0].strip() for line in text.splitlines() if line.strip()]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_classifiers: None) -> Path:
    """A working directory with the files that the README speaks of, budgets that take seconds, and a Hub."""
    rng = np.random.default_rng(0)
    for label in range(2):
        (tmp_path / "my_images" / f"class{label}").mkdir(parents=True)
        for index in range(8):
            pixels = rng.integers(100 * label, 100 * label + 100, (28, 28, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "my_images" / f"class{label}" / f"{index}.png")
    (tmp_path / "DIR").mkdir()
    arrays = {"test_images": rng.integers(0, 256, (20, 32, 32, 3), np.uint8), "test_labels": np.arange(20) % 10}
    np.savez(tmp_path / "DIR" / "cifar10.npz", **arrays)
    short = {
        "options": {"width": 8, "top_width": 4},
        "reconstruction": {"steps": 2},
        "matching": {"steps": 2},
        "pool": {"ages": [1]},
        "selection": {"images": 20},
    }
    tiny = DistillConfig.from_dict(short)
    monkeypatch.setitem(distillation.PRESETS, "default", tiny)
    monkeypatch.setitem(CLASSIFIERS, "convnet4", partial(ConvNet, width=8, depth=4))
    monkeypatch.setattr(protocol, "evaluate", partial(protocol.evaluate, epochs=1))
    monkeypatch.setattr(datasets, "CIFAR10", lambda root, train, transform: datasets.FakeData(20, transform=transform))
    monkeypatch.setitem(hub_server.TOKENS, "hf_me", "me")
    monkeypatch.chdir(tmp_path)
    with hub_server.serve_hub() as hub:
        hub_server.connect(monkeypatch, hub, tmp_path / "home", token="hf_me")
        yield tmp_path


@pytest.mark.parametrize(("heading", "code"), blocks("README.md", "python"), ids=lambda value: value.split("\n")[0])
def test_a_block_of_the_readme_runs(heading: str, code: str, desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found: dict[str, Any] = {}
    exec(compile(code, f"README.md, {heading}", "exec"), found)
    if "images" in found:  # the last batch of a loop
        assert found["images"].shape == (50, 3, 32, 32)
        assert found["labels"].shape == (50,)
    if heading in ("As a dataset", "As a loader"):
        assert found["images"].min() < -1, "normalised"
    if heading == "As a dataset":
        assert found["test_set"].transform.transforms[-1] is found["train_set"].transform.transforms[-1]
    if "train_set" in found:
        assert len(found["train_set"]) == 50 * len(found["train_set"].classes)
    if heading == "Share":
        assert found["train_set"].generator.revision
    if heading == "Make your own":
        assert found["train_set"].classes == ["class0", "class1"]
        assert (desk / "runs" / "mine" / "generator" / "model.safetensors").is_file()
    if heading == "How good is it?":
        assert "convnet3, recipe muon, ipc 10: " in capsys.readouterr().out


def test_photos_become_a_generator_by_the_commands_as_printed(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 3)):
        for label in range(2):
            folder = desk / "photos" / split / f"class{label}"
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(100 * label, 100 * label + 100, (70, 90, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.jpg")
    commands = [shlex.split(line)[1:] for line in lines("README.md") if "photos" in line]
    assert [words[0] for words in commands] == ["distill", "preview", "evaluate", "shrink", "push"]
    for words in commands:
        more = ["--epochs", "1", "--seeds", "0"] if words[0] == "evaluate" else []
        assert main([*words, *more]) == 0
    spec = Generator.from_pretrained("me/photos").spec
    assert (spec.size, spec.mirror, spec.classes) == (64, True, ("class0", "class1"))
    config = json.loads((desk / "runs" / "photos" / "run.json").read_text())["config"]
    assert (config["pool"]["classifiers"], config["options"]["code_channels"]) == (["convnet4"], 6)
    assert "convnet4, recipe tuned, ipc 10: " in capsys.readouterr().out


def test_the_readme_has_the_blocks_that_a_newcomer_needs() -> None:
    headings = [heading for heading, _ in blocks("README.md", "python")]
    assert headings == ["As a dataset", "As a loader", "Share", "Make your own", "How good is it?"]


def test_the_one_line_swap_of_the_readme_is_one_line() -> None:
    ((_, text),) = blocks("README.md", "diff")
    before, after = text.splitlines()
    assert (before[:2], after[:2]) == ("- ", "+ ")
    transform = transforms.ToTensor()
    found: dict[str, Any] = {"DistilledDataset": DistilledDataset, "transform": transform}
    exec(after[2:], found)
    assert found["train_set"].transform is transform
    asked: dict[str, Any] = {}
    exec(before[2:], {"CIFAR10": lambda root, **kwargs: asked.update(kwargs), "root": "", "transform": transform})
    assert set(asked) <= set(datasets.CIFAR10.__init__.__annotations__)


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_parses(page: str) -> None:
    parser = build_parser(defaultdict(lambda: lambda args: 0))
    for line in lines(page):
        words = shlex.split(line)
        command = next((known for known in COMMANDS if tuple(words[: len(known)]) == known), None)
        if words[:1] == ["torchrun"] and words[3:5] == ["-m", "dim_data"]:
            words = ["dim-data", *words[5:]]
        if words[0] == "dim-data":
            args = parser.parse_args(words[1:])
            parse_settings(getattr(args, "set", []), distillation.PRESETS[getattr(args, "preset", "default")])
        elif words[0] == "make":
            assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text()
        elif command:
            assert (ROOT / words[1]).is_file()
            COMMANDS[command](words[len(command) :])
        else:
            known = ("pip install .", "export ", "mv ", ".venv/bin/python -m pytest", "python benchmarks/report.py")
            assert line.startswith(known), f"no test knows the command {line!r}"


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    anchors = {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in re.findall(r"^#+ (.+)$", text, re.M)}
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in anchors
        elif not target.startswith("https://"):
            assert (ROOT / page).parent.joinpath(target).exists(), target


def test_the_readme_lists_the_bundled_generators() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\d+)x\d+ (RGB|grey) \| (\w+).* \| (yes|no) \|$", text, re.MULTILINE)
    found = {
        name: (str(config.spec.size), {1: "grey", 3: "RGB"}[config.spec.channels], config.source, config.soft_labels)
        for name, config in ((name, Generator.from_pretrained(name).config) for name in bundled_names())
    }
    assert {name: (*facts, soft == "yes") for name, *facts, soft in rows} == found


@pytest.mark.parametrize(
    ("start", "recipe", "ipc"),
    [
        ("ConvNet-3, 100 k shown", "muon", 10),
        ("500 k shown", "muon", 50),
        ("100 k shown, soft labels", "muon_soft", 10),
    ],
)
def test_the_table_of_kinds_states_what_was_measured(start: str, recipe: str, ipc: int) -> None:
    (row,) = [line for line in (ROOT / "README.md").read_text("utf-8").splitlines() if line.startswith(f"| {start} |")]
    stated = []
    for name in ("cifar10", "cifar10_noise"):
        file = ROOT / "benchmarks/accuracy/results" / f"cifar10-generator-{name}-convnet3-{recipe}-ipc{ipc}.json"
        found = [run["accuracy"] for run in json.loads(file.read_text("utf-8"))["runs"].values()]
        seeds = {1: " (one seed)", 2: " (two seeds)"}.get(len(found), "")
        stated.append(f"{100 * sum(found) / len(found):.1f}{seeds}")
    assert [cell.strip() for cell in row.split("|")[2:4]] == stated


def test_the_table_of_kinds_states_the_speed_that_was_measured() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    (row,) = [line for line in text.splitlines() if line.startswith("| pictures a second, two cores of an AMD EPYC |")]
    file = ROOT / "benchmarks/timing/results/amd-epyc-2-of-2-cores-bfloat16.json"
    rates = {row["name"]: row["rate"][0] for row in json.loads(file.read_text("utf-8"))["loader"]["rows"]}
    names = ("first pass over the pictures", "later passes", "noise")
    first, later, noise = (f"{rates[f'DistilledLoader, {name}']:,.0f}" for name in names)
    assert [cell.strip() for cell in row.split("|")[2:4]] == [f"{first}; {later} once each was shown", noise]


def test_cached_pictures_take_the_memory_that_the_readme_says() -> None:
    text = " ".join((ROOT / "README.md").read_text("utf-8").split())
    for name in bundled_names():
        config = Generator.from_pretrained(name).config
        size = config.codes * torch.Size((config.spec.channels, config.spec.size, config.spec.size)).numel()
        if config.codes:
            stated = rf"{size / 1e6:.0f}( MB)?( for all {config.codes:,})? of `{name}`"
            assert re.search(stated, text), stated


def test_codes_come_again_when_the_readme_says() -> None:
    text = " ".join((ROOT / "README.md").read_text("utf-8").split())
    (sentence,) = re.findall(r"they come again once each was shown: ([^.]*)\.", text)
    stated = dict(re.findall(r"([\d,]+) of (?:a class of )?`(\w+)`", sentence))
    for count, name in stated.items():
        assert {int(count.replace(",", ""))} == set(Generator.from_pretrained(name).bank.counts.tolist())
    assert len(stated) == 3
