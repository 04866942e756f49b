from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dim_data.distillation.curves import save_curves
from dim_data.generator.grids import sample_grid, save_grid
from dim_data.generator.model import Generator


@pytest.mark.parametrize("source", ["noise", "codes"])
@pytest.mark.parametrize(("columns", "max_classes"), [(10, 10), (1, 1), (4, 2)])
def test_a_grid_has_a_class_a_row(source: str, columns: int, max_classes: int, request: pytest.FixtureRequest) -> None:
    generator: Generator = request.getfixturevalue(f"tiny_{source}")
    size, rows = generator.spec.size, min(3, max_classes)
    picture = sample_grid(generator, columns=columns, max_classes=max_classes, seed=5)
    assert picture.size == (columns * (size + 2) - 2, rows * (size + 2) - 2)
    assert picture.mode == {1: "L", 3: "RGB"}[generator.spec.channels]
    sheet = torch.from_numpy(np.array(picture)).reshape(*picture.size[::-1], -1).permute(2, 0, 1)
    for row in range(rows):
        images = generator.synthesize(torch.full((columns,), row), torch.arange(columns), 5)
        for column, image in enumerate(images):
            top, left = row * (size + 2), column * (size + 2)
            assert torch.equal(sheet[:, top : top + size, left : left + size], image)
    if rows > 1:
        assert (sheet[:, size : size + 2] == 255).all()


def test_scale_enlarges_pixels(tiny_noise: Generator) -> None:
    small, large = (np.array(sample_grid(tiny_noise, columns=2, scale=scale)) for scale in (1, 3))
    assert np.array_equal(large, small.repeat(3, 0).repeat(3, 1))


def test_a_grid_is_written_whole(tiny_codes: Generator, tmp_path: Path) -> None:
    save_grid(tiny_codes, tmp_path / "grid.png", columns=3, scale=1)
    with Image.open(tmp_path / "grid.png") as picture:
        assert np.array_equal(np.array(picture), np.array(sample_grid(tiny_codes, columns=3)))
    assert [path.name for path in tmp_path.iterdir()] == ["grid.png"]


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
