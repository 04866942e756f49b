"""Memory and time of what is too large for memory are measured, stage by stage."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import scale


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
    result = scale.main([*words, "--options", tiny, "--out", str(tmp_path / "scale.json"), "--device", "cpu"])
    assert json.loads((tmp_path / "scale.json").read_text()) == result
    assert (result["mapped"]["mapped"], result["memory"]["mapped"]) == (True, False)
    for kind in ("mapped", "memory"):
        stages = result[kind]["stages"]
        assert {"reading", "fingerprint", "split", "pool", "reconstruction", "matching", "refining"} <= stages.keys()
        assert {"training on codes", "training on images"} <= stages.keys()
        assert all(stage["seconds_per_step"] >= 0 for stage in stages.values())
        assert all(stage["steps"] == 2 for name, stage in stages.items() if name in ("reconstruction", "matching"))
    assert {"loading", "first batch", "batches"} <= result["bank"]["stages"].keys()
