"""Warnings point at the script that did what they speak of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from dim_data import evaluate
from dim_data.images import ImageSpec, load_real, warn_caller


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("ant", "bee"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.fromarray(np.full((28, 28, 3), 99, np.uint8)).save(tmp_path / "photos" / name / "0.png")
    (tmp_path / "photos" / "ant" / "notes.txt").write_text("not an image")
    return tmp_path / "photos"


def test_however_deep_they_come_from(photos: Path) -> None:
    with pytest.warns(UserWarning, match=r"skipped 1 file \(no images, or hidden\): ant/notes.txt") as said:
        load_real(photos)
    assert [warning.filename for warning in said] == [__file__]
    spec = ImageSpec("two", 3, 28, ("0", "1"), (0.5,) * 3, (0.25,) * 3)
    train = load_real((torch.full((2, 3, 28, 28), 99, dtype=torch.uint8), torch.tensor([0, 1])), spec)
    with pytest.warns(UserWarning, match="skipped|paired in order") as said:
        evaluate(train, photos, "convnet3", "tuned", ipc=1, epochs=1)
    assert [warning.filename for warning in said] == [__file__] * 2


def test_also_where_torch_lies_between() -> None:
    class Complaining(Dataset[int]):
        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> int:
            code = compile("warn_caller('deep')", str(Path(torch.__file__).parent / "deep.py"), "exec")
            exec(code, {"warn_caller": warn_caller})
            return index

    with pytest.warns(UserWarning, match="deep") as said:
        list(DataLoader(Complaining()))
    assert said[0].filename == __file__
