"""Memory and time of what is too large for memory are measured, stage by stage."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import scale
from timing.scale import STEPS, render_scale


def test_made_images_are_the_same_each_time_and_differ_by_class() -> None:
    made, again = scale.MadeImages(60, 32, 3), scale.MadeImages(60, 32, 3)
    assert len(list(made)) == 60
    for (one, label), (two, _) in zip(made, again, strict=True):
        assert np.array_equal(one, two)
        assert (one.dtype, one.shape) == (np.uint8, (32, 32, 3))
        assert label in range(3)
    means = {label: picture.mean() for picture, label in made}
    assert len({round(mean) for mean in means.values()}) == 3


@pytest.mark.slow
def test_every_stage_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = json.dumps({"width": 8, "top_width": 4, "blocks": 1})
    words = ["--images", "150", "--size", "28", "--classes", "3", "--steps", "2", "--kept", "30", "--codes", "90"]
    out = tmp_path / "scale.json"
    other = {**dict.fromkeys(scale.SIZES, 1), "kept": 0}
    out.write_text(json.dumps([other, {**other, "images": 150, "size": 28, "classes": 3, "codes": 90}]))
    result = scale.main([*words, "--options", tiny, "--out", str(out), "--cache", str(tmp_path), "--device", "cpu"])
    assert result["command"].endswith("--device cpu")
    assert json.loads(out.read_text()) == [other, result]  # one of the same sizes has gone
    assert (result["mapped"][0]["mapped"], result["memory"][0]["mapped"]) == (True, False)
    for kind in ("mapped", "memory"):
        stages = result[kind][0]["stages"]
        assert stages["fetching"]["steps"] == scale.BATCHES
        assert {"reading", "fingerprint", "split", "pool", "reconstruction", "matching", "refining"} <= stages.keys()
        assert {"training on codes", "training on images"} <= stages.keys()
        assert all(stage["seconds_per_step"] >= 0 for stage in stages.values())
        assert all(stage["steps"] == 2 for name, stage in stages.items() if name in ("reconstruction", "matching"))
    assert {"loading", "first batch", "batches"} <= result["bank"]["stages"].keys()
    out.write_text(json.dumps([result]))
    text = render_scale(out)
    assert "| 150 of 28 pixels, 3 classes | 0 |" in text
    assert "x memory, " in text
    assert "| 90 codes, 0 MB |" in text


def test_what_was_measured_is_rendered(tmp_path: Path) -> None:
    assert render_scale(tmp_path / "nothing.json") == "Not measured yet."
    stage = {"seconds": 4.0, "seconds_per_step": 0.5, "peak_mb": 300, "anonymous_mb": 200}
    names = [*STEPS, "reading", "fingerprint"]
    slower = {"stages": {name: {**stage, "seconds_per_step": 1.0} for name in names}}
    faster = {"stages": {name: {**stage, "anonymous_mb": 900} for name in names}}
    found = {"images": 1_000_000, "size": 64, "classes": 1000, "codes": 0, "pixels_mb": 12288, "command": "python here"}
    found |= {"machine": {"hardware": "a CPU", "torch": "2"}, "mapped": [slower, faster], "memory": [faster, faster]}
    (tmp_path / "found.json").write_text(json.dumps([found]))
    text = render_scale(tmp_path / "found.json")
    assert "| 1,000,000 of 64 pixels, 1,000 classes | 12,288 | 900 | 300 | 900 | 300 | 4.0 | 4.0 |" in text
    assert "| 750 (1.50x memory, 1.00 to 2.00) |" in text
    assert "`python here` (a CPU, torch 2)" in text
