"""``dim-data cache``: what is kept of large image sets is listed and removed."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from tqdm import tqdm

from dim_data.cli import main
from dim_data.cli.progress import ReadBar
from dim_data.images import ImageRows, load_real


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIM_DATA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DIM_DATA_MAP_ABOVE", "1000")
    rng = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        images, labels = rng.integers(0, 256, (60, 28, 28), np.uint8), np.arange(60) % 3
        np.savez(tmp_path / f"{name}.npz", train_images=images, train_labels=labels)
        assert isinstance(load_real(tmp_path / f"{name}.npz").images, ImageRows)
    return tmp_path / "cache"


def test_sets_are_listed_and_removed_by_name(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ", 1)[1] for line in lines[:2]] == [
        f"{name!r}: 60 images, 0.00 GB, of {str(cache.parent / name) + '.npz'!r}" for name in ("cats", "dogs")
    ]
    assert lines[2] == f"2 image sets, 0.00 GB, in {cache}"
    assert main(["cache", "--remove", "dogs"]) == 0
    assert capsys.readouterr().out.startswith("removed ")
    assert main(["cache", "--json"]) == 0
    (kept,) = json.loads(capsys.readouterr().out)
    assert (kept["name"], kept["count"], kept["finished"]) == ("cats", 60, True)
    assert kept["bytes"] == sum(file.stat().st_size for file in Path(kept["folder"]).iterdir())
    assert main(["cache", "--remove", Path(kept["folder"]).name]) == 0
    assert list(cache.iterdir()) == []


def test_all_are_removed_at_once(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "--remove-all", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert list(cache.iterdir()) == []


def test_a_set_that_is_not_there_is_refused(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "--remove", "cats", "birds"]) == 1
    assert f"no image set 'birds' in {cache}, which has cats, dogs" in capsys.readouterr().err
    assert len(list(cache.iterdir())) == 2


def test_the_bar_of_a_reading_that_goes_on_begins_where_it_was() -> None:
    shown = []
    with ReadBar() as bar:
        bar.bar = tqdm(file=io.StringIO())
        for step in ((15, 24), (20, 24), (24, 24)):
            bar.advance(*step)
            shown.append((bar.bar.n, bar.bar.total, bar.bar.initial))
    assert shown == [(n, 24, 15) for n in (15, 20, 24)]
