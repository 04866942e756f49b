"""Figures of the accuracies."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from accuracy import plots


def test_figures_hold_what_they_show_and_are_drawn_anew_when_it_changes(tmp_path: Path) -> None:
    def cell(row: str, recipe: str, ipc: int, *accuracies: float) -> dict[str, object]:
        return {
            "dataset": "cifar10",
            "classifier": "convnet3",
            "row": row,
            "source": "mine",
            "recipe": recipe,
            "ipc": ipc,
            "images_shown": ipc * 10_000,
            "runs": {str(seed): {"accuracy": value} for seed, value in enumerate(accuracies)},
            **({} if row == "real" else {"bytes": 2_000_000, "latents": "codes"}),
        }

    cells = [
        cell("generator", "tuned", 10, 0.7, 0.72),
        cell("real", "soft", 10, 0.8),
        cell("generator", "tuned", 1, 0.55),
        cell("stored", "tuned", 10, 0.6),
    ]
    assert plots.accuracy_points(cells, "muon", "images_shown") == {}
    shown = plots.accuracy_points(cells, "sgd", "images_shown")
    mine = plots.Line("mine", 0)
    jpegs, real = "random real JPEGs in the bytes of mine", plots.Line(plots.REAL, 1)
    assert list(shown) == [mine, plots.Line(jpegs, 0), real]
    assert shown[mine] == [(10_000, pytest.approx(55), 0), (100_000, pytest.approx(71), pytest.approx(2**0.5))]
    assert plots.accuracy_points(cells, "sgd", "bytes") == {
        plots.Line("a generator, codes", 0, shown=100): [(2.0, *shown[mine][1][1:])],
        plots.Line("random real JPEGs", 0, shown=100): [(2.0, pytest.approx(60), 0)],
    }
    mixed = cell("generator", "muon_crop_mixed", 50, 0.8)
    by_bytes = plots.accuracy_points([mixed], "muon", "bytes")
    assert list(by_bytes) == [plots.Line("a generator, codes", 0.5, True, 500)]

    figure = plots.draw({"SGD": shown, "Muon": by_bytes}, [], "x", "title")
    explained = [text.get_text() for text in figure.legends[0].get_texts()]
    assert explained == [
        *("a generator, codes", "mine", jpegs, plots.REAL),
        *("learning classes", "learning half soft labels, half classes", "learning soft labels"),
        *("hollow: crops", "500 k shown"),
    ]

    few = {"low": [(1.0, 20.0, 0.0)], "both": [(1.0, 49.9, 0.0), (2.0, 50.0, 0.0)]}
    assert plots.comparable(few, [{"points": [[1, 60], [2, 70]]}, {"points": [[1, 50]]}]) == {"both": few["both"][1:]}

    stamps = {}
    for name, (stamp, figure) in plots.figures(cells).items():
        assert not plots.is_current(tmp_path / name, stamp)
        plots.save(tmp_path / name, stamp, figure)
        assert plots.is_current(tmp_path / name, stamp)
        stamps[name] = stamp
    changed = plots.figures([*cells, cell("real", "tuned", 10, 0.76)])  # real images have no bytes
    assert {name for name, (stamp, _) in changed.items() if stamp != stamps[name]} == {"accuracy_by_images.png"}
    larger = {**cell("real", "muon", 100, 0.9), "classifier": "resnet18_half"}
    assert {name for name, (stamp, _) in plots.figures([*cells, larger]).items() if stamp != stamps[name]} == {
        "growth.png"
    }


def test_names_in_a_figure_do_not_lie_on_one_another() -> None:
    ends = [(6.0, 77.7), (6.0, 77.5), (2.5, 79.7), (6.0, 71.0), (6.0, 77.7)]
    heights = plots.label_heights(ends)
    column = sorted(height for height, (x, _) in zip(heights, ends, strict=True) if x == 6)
    assert all(above - below >= 0.9 for below, above in itertools.pairwise(column))
    assert max(abs(height - y) for height, (_, y) in zip(heights, ends, strict=True)) < 2
    assert heights[2] == 79.7
