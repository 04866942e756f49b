from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dim_data.distillation.pictures import save_curves

RECORDS = [
    *({"stage": "pool", "step": step, "cross_entropy": 1 / step, "seconds": 1.0} for step in range(10, 60, 10)),
    *({"stage": "reconstruction", "step": step, "pixels": 0.2, "divergence": 0.0} for step in range(10, 300, 10)),
    *({"stage": "adversarial", "step": step, "distance": -3.0 / step, "penalty": 2.0} for step in (10, 20)),
    {"stage": "selection", "step": 20, "accuracy": 0.0},
]


@pytest.mark.parametrize("count", [1, 6, 34, len(RECORDS)])
def test_curves(count: int, tmp_path: Path, recwarn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = pytest.importorskip("matplotlib.figure").Figure
    kept, save = [], figure.savefig
    monkeypatch.setattr(figure, "savefig", lambda self, *args, **rest: kept.append(self) or save(self, *args, **rest))
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text("".join(json.dumps(record) + "\n" for record in RECORDS[:count]))
    save_curves(metrics, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.format == "PNG"
    stages = list(dict.fromkeys(record["stage"] for record in RECORDS[:count]))
    assert [axes.get_title() for axes in kept[0].axes] == stages
    drawn = {axes.get_title(): {line.get_label() for line in axes.lines} for axes in kept[0].axes}
    scales = {axes.get_title(): axes.get_yscale() for axes in kept[0].axes}
    wanted: dict[str, tuple[str, set[str]]] = {
        "pool": ("log", {"cross_entropy"}),
        "reconstruction": ("log", {"pixels"}),
        "adversarial": ("linear", {"distance", "penalty"}),
        "selection": ("linear", {"accuracy"}),
    }
    assert {stage: (scales[stage], drawn[stage]) for stage in stages} == {stage: wanted[stage] for stage in stages}
    assert [str(w.message) for w in recwarn] == []
