"""What processes share is measured by torchrun, and rendered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import processes
from timing.processes import NAMES, bandwidth, render_processes


def test_a_ring_sends_nearly_every_byte_twice() -> None:
    assert bandwidth(100, 2, 1) == 100
    assert bandwidth(100, 64, 0.5) == pytest.approx(2 * 63 / 64 * 200)


def test_what_was_measured_is_rendered(tmp_path: Path) -> None:
    assert render_processes(tmp_path / "nothing.json") == "Not measured yet."
    stage = {"one": [2.0, 4.0, 2.0], "several": [1.0, 2.0, 2.0], "bytes": 8e6}
    found: dict[str, Any] = {"processes": 2, "rounds": 3, "images": 4000, "size": 32, "command": "python here"}
    found |= {"machine": {"hardware": "a CPU", "torch": "2"}, "stages": dict.fromkeys(NAMES, stage)}
    (tmp_path / "found.json").write_text(json.dumps(found))
    text = render_processes(tmp_path / "found.json")
    assert "| a step of matching, the batch shared | 2 | 2 | 1x (1.00 to 2.00) | 8.00 |" in text
    assert "| 5 ms | 224.00 | 2,016.00 |" in text


@pytest.mark.slow
def test_every_stage_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIM_DATA_COMPILE", "0")
    words = ["--rounds", "1", "--images", "160", "--size", "28", "--steps", "3", "--epochs", "1", "--device", "cpu"]
    tiny = json.dumps({"width": 8, "top_width": 4, "blocks": 1})
    result = processes.main([*words, "--options", tiny, "--out", str(tmp_path / "found.json")])
    assert set(result["stages"]) == set(NAMES)
    for name, stage in result["stages"].items():
        assert all(seconds > 0 for seconds in stage["one"] + stage["several"]), name
        assert (stage["bytes"] > 0) == (name != "evaluate")
    assert result["stages"]["matching"]["bytes"] > result["gradients"]
    assert "evaluate(seeds=2)" in render_processes(tmp_path / "found.json")
