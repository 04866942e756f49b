from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

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
