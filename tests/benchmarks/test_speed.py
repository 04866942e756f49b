"""Speed is measured by turns, and rendered."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path

import pytest
import torch

import speed
from accuracy.machines import hardware
from dim_data.images.specs import KNOWN_SPECS
from timing import contest, original, tables


def test_contestants_take_turns_and_are_compared_within_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, turns = [0.0], []
    monkeypatch.setattr(contest.time, "perf_counter", lambda: clock[0])

    def contestant(name: str, rate: float) -> contest.Work:
        def work() -> int:
            turns.append(name)
            clock[0] += 10 / rate / (1 + 0.1 * (len(turns) // 5))  # the machine gets faster all the while
            return 10

        return work

    bench = contest.Bench(torch.device("cpu"), seconds=0.0, rounds=3)
    rows = bench.compete({"slow": contestant("slow", 100), "fast": contestant("fast", 300)}, "slow")
    assert turns == ["slow", "fast"] * 4
    assert rows[0]["ratio"] == [1, 1, 1]
    assert rows[1]["ratio"][0] == pytest.approx(3, rel=0.15)
    assert rows[1]["rate"][1] < rows[1]["rate"][0] <= rows[1]["rate"][2]


@pytest.mark.slow
def test_every_section_of_speed_is_measured_and_rendered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "Bench", partial(speed.Bench, batch=10, step_batch=4))
    arguments = ["--rounds", "1", "--seconds", "0", "--scale", "0.001", "--device", "cpu", "--out", str(tmp_path)]
    path = speed.main([*arguments, "--sections", "generator"])
    assert path.stem == re.sub("[^a-z0-9]+", "-", hardware(torch.device("cpu")).lower().replace("torch.", ""))
    assert list(json.loads(path.read_text())) == ["generator"]
    others = [name for name in speed.SECTIONS if name != "generator"]
    assert speed.main([*arguments, "--sections", *others]) == path
    found = json.loads(path.read_text())
    assert list(found) == list(speed.SECTIONS)
    assert found["loader"]["command"].startswith("python benchmarks/speed.py --rounds 1")
    assert {row["classes"] for row in found["growth"]["rows"]} == {10, 100, 1000}
    assert 0 < found["profile"]["synthesis"] < 1
    two = {"one": found, "other": {"start": {**found["start"], "hardware": "another, 9 of 9 cores"}}}
    rendered = (render(two, {"mnist": "98.7"}) for render in (tables.render_details, tables.render_summary))
    details, summary = rendered
    assert all(f"**{title}** ({found['loader']['hardware']})" in details for title in tables.TITLES.values())
    assert "**Start** (another, 9 of 9 cores)" in details
    assert f"| median (range) | {found['loader']['hardware']} | another, 9 of 9 cores |" in summary
    for what in (
        "time to train ConvNet-3 from DistilledDataset, 2 workers, later passes, against CIFAR10 in the same",
    ):
        assert what in summary
    assert tables.render_headlines({"cpu": found}).count("\n|") == 8, "seven rows and a line below the head"
    assert "| the original's way | " in details
    assert " | 98.7 | " in details


def test_a_measuring_process_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)a measuring process failed: .*ZeroDivisionError"):
        contest.in_process("1 / 0")


def test_the_originals_generator_comes_from_a_checkout_or_is_missed(tmp_path: Path) -> None:
    spec = KNOWN_SPECS["fashion_mnist"]
    with pytest.raises(FileNotFoundError, match="--original wants a checkout of the DiM paper's code"):
        original.load_generator(tmp_path, spec)
    code = "class Generator:\n    def __init__(self, args):\n        self.data = args.data\n"
    (tmp_path / "gan_model.py").write_text(code)
    assert original.load_generator(tmp_path, spec).data == "fashion"
    noise = original.draw_noise(torch.tensor([3, 0]), 10)
    assert noise.shape == (2, 100)
    assert torch.equal(noise[:, :10], torch.eye(10)[[3, 0]])
