"""What the result files say is rendered: tables of accuracies, aims and costs, and the cards."""

from __future__ import annotations

import json
from pathlib import Path

import torch

import report
from accuracy import aims, cards
from accuracy.cells import RESULTS, load_results
from accuracy.cost import render_cost
from accuracy.tables import render
from dim_data import Generator
from dim_data.hub.publishing import stated_accuracies


def test_the_readme_is_up_to_date() -> None:
    assert report.main(["--check"]) == 0


def test_report_renders_means_and_spreads(tmp_path: Path) -> None:
    run = {"seconds": 1.0, "hardware": "a CPU", "versions": {"torch": "2.0"}, "command": "c"}
    cell = {"dataset": "mnist", "row": "real", "source": "mnist", "classifier": "convnet3", "recipe": "tuned"}
    cell |= {"ipc": 10, "epochs": 1000, "images_shown": 100_000}
    cell["runs"] = {str(i): {**run, "accuracy": value} for i, value in enumerate((0.5, 0.6, 0.7))}
    trial = {"idea": "an idea", "data": "mnist", "verdict": "kept", "measured": "m", "hardware": "h", "torch": "2.0"}
    trial |= {"command": "c", "rows": [{"variant": "with", "error": 0.25}]}
    for folder, content in (("results", cell), ("tried", trial)):
        (tmp_path / "benchmarks" / "accuracy" / folder).mkdir(parents=True)
        (tmp_path / "benchmarks" / "accuracy" / folder / "one.json").write_text(json.dumps(content))
    names = {name for tables in report.pages(tmp_path, []).values() for name in tables}
    markers = "".join(f"<!-- {name}:begin -->stale<!-- {name}:end -->" for name in names)
    pages = (tmp_path / "README.md", tmp_path / "benchmarks" / "README.md")
    for page in pages:
        page.write_text(f"before {markers} after")
    arguments = ["--root", str(tmp_path)]
    assert report.main([*arguments, "--check"]) == 1
    assert report.main(arguments) == 0
    assert report.main([*arguments, "--check"]) == 0
    short, long = (page.read_text() for page in pages)
    assert "60.0 ± 10.0" in long
    assert "| with | 0.25 |" in long
    assert (short.count("stale"), long.count("stale")) == (8, 0)  # the short page has no use for these
    assert all(text.startswith("before ") and text.endswith(" after") for text in (short, long))


def test_the_other_classifiers_share_a_table() -> None:
    runs = {str(i): {"accuracy": 0.5, "hardware": "a CPU", "versions": {"torch": "2.0"}} for i in range(3)}
    cell = {"dataset": "mnist", "row": "real", "source": "mnist", "recipe": "tuned", "runs": runs}
    names = (("convnet3", 1), ("resnet18", 10), ("resnet10", 1))
    text = render([{**cell, "classifier": name, "ipc": ipc} for name, ipc in names])
    first, second = text.split("\n\n**MNIST**")
    assert first.startswith("**MNIST**, convnet3, recipe `tuned`\n\n| trained on | ipc 1 (10 k shown) |\n")
    assert second.splitlines()[:6] == [
        ", other classifiers, recipe `tuned`",
        "",
        "| classifier | trained on | ipc 1 (10 k shown) | ipc 10 (100 k shown) |",
        "|---|---|--:|--:|",
        "| resnet10 | real images, fresh, same protocol | 50.0 ± 0.0 |  |",
        "| resnet18 | real images, fresh, same protocol |  | 50.0 ± 0.0 |",
    ]


def test_an_aim_is_met_or_missed_by_the_cell_it_names(tmp_path: Path) -> None:
    def cell(recipe: str, *accuracies: float, row: str = "generator") -> dict[str, object]:
        runs = {str(i): {"accuracy": value} for i, value in enumerate(accuracies)}
        named = {"source": "mnist", "classifier": "convnet3", "recipe": recipe, "ipc": 10}
        return {"dataset": "mnist", "row": row, **named, "runs": runs}

    def aim(value: float, recipe: str, tried: str = "") -> dict[str, object]:
        return {"aim": value, "source": "mnist", "classifier": "convnet3", "recipe": recipe, "ipc": 10, "tried": tried}

    rows = [
        {"what": "met", "dataset": "mnist", "published": "X", "classes": aim(60, "tuned"), "any": aim(64, "soft")},
        {"what": "missed", "dataset": "mnist", "published": "X", "classes": aim(61, "tuned", "all we knew")},
        {"what": "open", "dataset": "mnist", "published": "X", "any": aim(90, "muon", "nothing")},
    ]
    (tmp_path / "aims.json").write_text(json.dumps({"rows": rows}))
    results = [cell("tuned", 0.9, row="real"), cell("tuned", 0.59, 0.6, 0.61), cell("soft", 0.64)]
    lines = aims.render_answers(results, tmp_path / "aims.json").splitlines()
    assert lines[2:5] == [
        "| met | X | 60.0 ± 1.0, `mnist`, `convnet3`, `tuned` | 60 | 64.0 (n=1), `mnist`, `convnet3`, `soft` | 64 |",
        "| missed | X | 60.0 ± 1.0, `mnist`, `convnet3`, `tuned` | 61 |  |  |",
        "| open | X |  |  | not measured | 90 |",
    ]
    assert lines[6:] == [
        "Missed:",
        "",
        "- missed, learning classes: 60.0 ± 1.0 is 1.0 short of 61. Tried: all we knew.",
        "- open, soft labels allowed: 90 was not measured. Tried: nothing.",
    ]
    short = aims.render_aims(results, tmp_path / "aims.json").splitlines()
    assert short[2:4] == ["| met | X | 60.0 ± 1.0 | 60 | 64.0 (n=1) | 64 |", "| missed | X | 60.0 ± 1.0 | 61 |  |  |"]
    assert short[8] == "- missed, learning classes: 60.0 ± 1.0 is 1.0 short of 61."


def test_every_aim_names_a_cell_as_the_result_files_do() -> None:
    results = load_results(RESULTS)
    for row in aims.read_rows(aims.AIMS):
        for aim in (row[labels] for labels in aims.LABELS if labels in row):
            assert aims.answer(row["dataset"], aim, results), (row["what"], aim)


def test_costs_are_spans_of_minutes(tmp_path: Path) -> None:
    def cell(classifier: str, ipc: int, *seconds: float) -> dict[str, object]:
        runs = {str(i): {"seconds": s, "hardware": "a CPU"} for i, s in enumerate(seconds)}
        return {"classifier": classifier, "ipc": ipc, "runs": runs}

    facts = {"minutes": 31.4, "images_shown": 217_600, "images_shown_to_pool": 165_000, "device": "cpu"}
    for name, more in (("one", {}), ("two", {"teacher_minutes": 17.7}), ("three", {"refining_minutes": 131})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "training_config.json").write_text(json.dumps(facts | more))
    results = [cell("convnet3", 1, 60, 90), cell("convnet3", 1, 120), cell("resnet18", 10, 1200)]
    lines = render_cost(results, tmp_path).splitlines()
    assert "| `one` | 31 | CPU | 217,600 | 165,000 |" in lines
    assert "| `two` | 31, and 18 of its teacher | CPU | 217,600 | 165,000 |" in lines
    assert "| `three` | 31, and 131 of refining, classifiers included | CPU | 217,600 | 165,000 |" in lines
    assert "| convnet3 | 1.5 (1 to 2) |  |" in lines
    assert "| resnet18 |  | 20 |" in lines


def test_a_bundled_generators_card_states_what_was_measured(codes_folder: Path) -> None:
    def cell(source: str, ipc: int, *accuracies: float) -> dict[str, object]:
        runs = {str(seed): {"accuracy": value} for seed, value in enumerate(accuracies)}
        named = {"row": "generator", "source": source, "classifier": "convnet3", "recipe": "tuned"}
        return {**named, "ipc": ipc, "epochs": 1000, "runs": runs}

    cells = [cell("mine", 10, 0.7, 0.8), cell("mine", 1, 0.5), cell("other", 1, 0.9)]
    found = cards.measured("mine", cells)
    assert [(one.ipc, one.seeds, one.mean) for one in found] == [(1, (0,), 0.5), (10, (0, 1), 0.75)]
    assert not cards.is_card_current(codes_folder, found)
    cards.write_card(codes_folder, found)
    assert cards.is_card_current(codes_folder, found)
    assert stated_accuracies(codes_folder) == found
    assert "| 50.00% |" in (codes_folder / "README.md").read_text()
    assert not cards.is_card_current(codes_folder, found[1:])
    picture = codes_folder / "samples.png"
    painted = picture.stat().st_mtime_ns
    cards.write_card(codes_folder, found[1:])
    assert cards.is_card_current(codes_folder, found[1:])
    assert picture.stat().st_mtime_ns == painted, "of the same weights, a picture is not painted again"
    Generator.from_pretrained(codes_folder).save_pretrained(codes_folder, dtype=torch.int8)
    assert not cards.is_card_current(codes_folder, found)
