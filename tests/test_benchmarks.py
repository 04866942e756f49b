"""The benchmark scripts: a cell is measured, resumed and rendered."""

from __future__ import annotations

import importlib.util
import itertools
import json
import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from dim_data import Generator, GeneratorConfig
from dim_data.hub.publishing import stated_accuracies
from dim_data.images.real import LabelledImages
from dim_data.images.specs import KNOWN_SPECS
from dim_data.protocol import evaluation

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))  # its modules import one another, as when one of them is run


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 60), ("test", 40)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 32, 32, 3), np.uint8)
        arrays[f"{split}_labels"] = np.arange(count) % 10
    np.savez(tmp_path / "cifar10.npz", **arrays)
    options = {"width": 8, "top_width": 4, "blocks": 1}
    generator = Generator(GeneratorConfig(KNOWN_SPECS["cifar10"], "compact", "noise", options))
    generator.save_pretrained(tmp_path / "tiny")
    return tmp_path


@pytest.mark.parametrize("row", ["generator", "before", "real", "stored"])
def test_a_cell_is_written_and_resumed(root: Path, row: str) -> None:
    arguments = ["cifar10", "--row", row, "--source", str(root / "tiny"), "--ipc", "1", "--epochs", "2"]
    arguments += ["--data-root", str(root), "--out", str(root / "results"), "--device", "cpu", "--seeds"]
    main = load("reproduce").main
    path = main([*arguments, "0"])
    first = json.loads(path.read_text())
    assert main([*arguments, "0", "1"]) == path
    second = json.loads(path.read_text())
    assert second["runs"]["0"] == first["runs"]["0"]
    assert set(second["runs"]) == {"0", "1"}
    assert second["images_shown"] == 20
    run = second["runs"]["1"]
    assert 0 <= run["accuracy"] <= 1
    assert run["command"].startswith("python benchmarks/reproduce.py cifar10 --row")
    assert str(root) + " " not in run["command"].split("--data-root")[1][:20]
    assert run["versions"]["torch"] == torch.__version__


@pytest.mark.usefixtures("small_classifiers")
def test_seeds_of_a_cell_may_be_measured_side_by_side(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["cifar10", "--source", str(root / "tiny"), "--ipc", "1", "--epochs", "1"]
    arguments += ["--data-root", str(root), "--out", str(root / "results"), "--device", "cpu", "--seeds"]
    reproduce, original, measured = load("reproduce"), evaluation.evaluate, []

    def evaluate(*args: Any, seeds: tuple[int], **kwargs: Any) -> Any:
        measured.append(seeds[0])
        if seeds == (0,):  # another process begins and ends meanwhile
            reproduce.main([*arguments, "1"])
        return original(*args, seeds=seeds, **kwargs)

    monkeypatch.setattr(reproduce, "evaluate", evaluate)
    path = reproduce.main([*arguments, "0", "1"])
    assert set(json.loads(path.read_text())["runs"]) == {"0", "1"}
    assert measured == [0, 1]


@pytest.mark.usefixtures("small_classifiers")
def test_a_cell_that_was_killed_goes_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["cifar10", "--source", str(root / "tiny"), "--ipc", "1", "--epochs", "4", "--seeds", "0"]
    arguments += ["--data-root", str(root), "--device", "cpu", "--out"]
    reproduce, original, seen = load("reproduce"), evaluation.evaluate, []

    def evaluate(*args: Any, stop: int, **kwargs: Any) -> Any:
        def note(step: evaluation.ClassifierStep) -> None:
            seen.append(step.step)
            if step.step == stop:
                raise KeyboardInterrupt

        return original(*args, **kwargs, checkpoint_seconds=0, on_step=note)

    first = reproduce.hardware(torch.device("cpu"))
    monkeypatch.setattr(reproduce, "evaluate", partial(evaluate, stop=3))
    with pytest.raises(KeyboardInterrupt):
        reproduce.main([*arguments, str(root / "results")])
    assert {path.suffix for path in (root / "results").iterdir()} == {".pt", ".txt"}
    monkeypatch.setattr(reproduce, "evaluate", partial(evaluate, stop=0))
    monkeypatch.setattr(reproduce, "hardware", lambda device: f"another {device}")
    path = reproduce.main([*arguments, str(root / "results")])
    assert seen == [1, 2, 3, 4]
    assert list((root / "results").iterdir()) == [path]
    whole = json.loads(reproduce.main([*arguments, str(root / "whole")]).read_text())["runs"]["0"]
    run = json.loads(path.read_text())["runs"]["0"]
    assert run["accuracy"] == whole["accuracy"]
    assert run["hardware"] == f"{first}; another cpu"
    assert whole["hardware"] == "another cpu"


@pytest.mark.usefixtures("small_classifiers")
@pytest.mark.parametrize("labelled", [True, False])
def test_a_generator_is_refined(labelled: bool, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec, options = KNOWN_SPECS["cifar10"], {"width": 8, "top_width": 4, "blocks": 1}
    generator = Generator(GeneratorConfig(spec, "compact", "codes", options, codes=60))
    latents = torch.rand(60, *generator.decoder.latent_shape) * 2 - 1
    labels = torch.arange(60) % 10
    generator.store(latents, labels, torch.eye(10)[labels] if labelled else None).save_pretrained(root / "codes")
    arguments = [
        str(root / "codes"),
        "--codes",
        "30",
        "--classifiers",
        "convnet3",
        "resnet10",
        "--data-root",
        str(root),
    ]
    arguments += ["--ipc", "1", "--epochs", "2", "--looks", "2", "--device", "cpu", "--out", str(root / "refined")]
    folder = load("refine").main(arguments)
    kept, refined = Generator.from_pretrained(root / "codes").keep_codes(30), Generator.from_pretrained(folder)
    assert refined.bank.counts.tolist() == kept.bank.counts.tolist() == [3] * 10
    changed = (refined.bank.unpack(refined.bank.codes) != kept.bank.unpack(kept.bank.codes)).flatten(1).float().mean(1)
    assert 0 < changed.min() <= changed.max() < 0.3
    derived = json.loads((folder / "training_config.json").read_text())["derived"]
    after = ", then relabel_codes(temperature=3) by them" if labelled else ""
    assert derived == f"keep_codes(30), then refine_codes(looks=2) under ['convnet3', 'resnet10']{after}"
    assert refined.config.soft_labels == labelled
    if labelled:
        assert refined.bank.soft.amax(1).float().mean() < 200  # the old ones were sure
        load("refine").main([*arguments, "--temperature", "0"])
        assert torch.equal(Generator.from_pretrained(folder).bank.soft, kept.bank.soft)
        load("refine").main(arguments)
    files = {name: (folder / name).read_bytes() for name in ("classifier0_convnet3.safetensors", "model.safetensors")}
    (folder / "classifier1_resnet10.safetensors").unlink()
    capsys.readouterr()
    load("refine").main(arguments)
    assert {name: (folder / name).read_bytes() for name in files} == files  # trained and refined alike
    with pytest.raises(ValueError, match="does not store the code of every training image"):
        load("refine").main([str(folder), *arguments[1:]])


def test_fill_measures_what_is_missing_cheapest_first(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fill = load("fill")
    calls: list[list[str]] = []
    original = fill.reproduce.main
    monkeypatch.setattr(fill.reproduce, "main", lambda words: calls.append(words) or original(words))
    monkeypatch.setattr(fill, "bundled_names", lambda: [str(root / "tiny")])
    monkeypatch.setattr(fill, "is_measured", lambda cell, folder: is_measured((*cell[:2], "tiny", *cell[3:]), folder))
    some = ["--classifiers", "convnet3", "--recipes", "tuned", "soft", "--rows", "generator", "--ipc", "2", "1"]
    some += ["--epochs", "1", "--data-root", str(root), "--device", "cpu"]
    monkeypatch.setattr(fill.reproduce, "RESULTS", root / "results")
    is_measured = load("fill").is_measured
    assert fill.main([*some, "--list"]) == 6
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[-2:] for line in listed] == [[ipc, seed] for ipc in "12" for seed in "012"]
    assert fill.main([*some, "--max-minutes", "0"]) == 6
    assert calls == []
    assert fill.main([*some, "--seeds", "1"]) == 0
    assert [words[words.index("--ipc") + 1] for words in calls] == ["1", "2"]
    assert not any("--out" in words for words in calls)  # the folder would be published with the command
    assert fill.main([*some, "--list"]) == 4
    elsewhere = ["--out", str(root / "elsewhere")]
    assert fill.main([*some, *elsewhere, "--ipc", "1", "--seeds", "0"]) == 0
    assert calls[-1][-2:] == elsewhere
    assert len(list((root / "elsewhere").iterdir())) == 1


def test_published_commands_name_no_folder_of_the_machine_they_ran_on() -> None:
    files = list((BENCHMARKS / "results").glob("*.json"))
    commands = [run["command"] for file in files for run in json.loads(file.read_text())["runs"].values()]
    assert len(commands) >= len(files) > 0
    assert [command for command in commands if any(Path(word).is_absolute() for word in command.split())] == []


def test_real_images_take_the_soft_labels_of_a_bank() -> None:
    reproduce = load("reproduce")
    spec, labels = KNOWN_SPECS["cifar10"], torch.arange(40) * 7 % 10
    data = LabelledImages(torch.zeros(40, 3, 32, 32, dtype=torch.uint8), labels, spec)
    options = {"width": 8, "top_width": 4, "blocks": 1}
    fresh = Generator(GeneratorConfig(spec, "compact", "codes", options, codes=10))
    given = torch.nn.functional.one_hot((labels + 1) % 10, 10) * 0.75 + 0.025
    latents = torch.zeros(40, *fresh.decoder.latent_shape)
    taught = reproduce.with_soft_labels(data, fresh.store(latents, labels, given))
    torch.testing.assert_close(taught.bank.soft, given, atol=0.02, rtol=0)
    for other in (fresh, fresh.store(latents, labels), fresh.store(latents[:30], labels[:30], given[:30])):
        with pytest.raises(ValueError, match="wants a --source that stores a soft label for every training image"):
            reproduce.with_soft_labels(data, other)


def test_stored_images_fit_their_budget_and_look_alike() -> None:
    reproduce = load("reproduce")
    ramp = torch.arange(32).view(1, 1, 1, 32).expand(40, 3, 32, 32) * 4 + torch.arange(40).view(-1, 1, 1, 1)
    data = LabelledImages(ramp.to(torch.uint8), torch.arange(40) % 10, KNOWN_SPECS["cifar10"])
    images, size = reproduce.stored_images(data, 100_000, quality=95)
    assert len(images) == 40
    assert size <= 100_000
    order = torch.cat([(data.labels == label).nonzero()[:, 0] for label in range(10)])
    assert set(images.labels.tolist()) == set(data.labels[order].tolist())
    nearest = (images.images[:, None].float() - data.images[None].float()).abs().mean((2, 3, 4)).min(1)
    assert nearest.values.max() < 4
    assert torch.equal(data.labels[nearest.indices], images.labels)
    few, smaller = reproduce.stored_images(data, 2_000, quality=95)
    assert len(few) < 40
    assert smaller <= 2_000


def test_sheet_round_trip() -> None:
    reproduce = load("reproduce")
    images = np.random.default_rng(0).integers(0, 256, (7, 28, 28, 1), np.uint8)
    assert np.array_equal(reproduce.from_sheet(reproduce.as_sheet(images), 7, 28), images)


def test_the_other_classifiers_share_a_table() -> None:
    runs = {str(i): {"accuracy": 0.5, "hardware": "a CPU", "versions": {"torch": "2.0"}} for i in range(3)}
    cell = {"dataset": "mnist", "row": "real", "source": "mnist", "recipe": "tuned", "runs": runs}
    names = (("convnet3", 1), ("resnet18", 10), ("resnet10", 1))
    text = load("report").render([{**cell, "classifier": name, "ipc": ipc} for name, ipc in names])
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


def test_report_renders_means_and_spreads(tmp_path: Path) -> None:
    report = load("report")
    run = {"seconds": 1.0, "hardware": "a CPU", "versions": {"torch": "2.0"}, "command": "c"}
    cell = {"dataset": "mnist", "row": "real", "source": "mnist", "classifier": "convnet3", "recipe": "tuned"}
    cell |= {"ipc": 10, "epochs": 1000, "images_shown": 100_000}
    cell["runs"] = {str(i): {**run, "accuracy": value} for i, value in enumerate((0.5, 0.6, 0.7))}
    trial = {"idea": "an idea", "data": "mnist", "verdict": "kept", "measured": "m", "hardware": "h", "torch": "2.0"}
    trial |= {"command": "c", "rows": [{"variant": "with", "error": 0.25}]}
    for folder, content in (("results", cell), ("tried", trial)):
        (tmp_path / "benchmarks" / folder).mkdir(parents=True)
        (tmp_path / "benchmarks" / folder / "one.json").write_text(json.dumps(content))
    pages = (tmp_path / "README.md", tmp_path / "benchmarks" / "README.md")
    markers = "".join(
        f"<!-- {name}:begin -->stale<!-- {name}:end -->" for name in ("aims", "results", "cost", "speed", "tried")
    )
    for page in pages:
        page.write_text(f"before {markers} after")
    arguments = ["--root", str(tmp_path)]
    assert report.main([*arguments, "--check"]) == 1
    assert report.main(arguments) == 0
    assert report.main([*arguments, "--check"]) == 0
    for page, wanted, others in zip(pages, ("60.0 ± 10.0", "| with | 0.25 |"), (2, 2), strict=True):
        text = page.read_text()
        assert wanted in text
        assert text.count("stale") == others  # what belongs into the other page
        assert text.startswith("before ")
        assert text.endswith(" after")


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
    lines = load("aims_table").render_aims(results, tmp_path / "aims.json").splitlines()
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


def test_every_aim_names_a_cell_as_the_result_files_do() -> None:
    aims_table, files = load("aims_table"), (BENCHMARKS / "results").glob("*.json")
    results = [json.loads(path.read_text()) for path in files]
    for row in json.loads(aims_table.AIMS.read_text())["rows"]:
        for aim in (row[labels] for labels in aims_table.LABELS if labels in row):
            assert aims_table.answer(row["dataset"], aim, results), (row["what"], aim)


def test_costs_are_spans_of_minutes(tmp_path: Path) -> None:
    def cell(classifier: str, ipc: int, *seconds: float) -> dict[str, object]:
        runs = {str(i): {"seconds": s, "hardware": "a CPU"} for i, s in enumerate(seconds)}
        return {"classifier": classifier, "ipc": ipc, "runs": runs}

    facts = {"minutes": 31.4, "images_shown": 217_600, "images_shown_to_pool": 165_000, "device": "cpu"}
    for name, more in (("one", {}), ("two", {"teacher_minutes": 17.7}), ("three", {"refining_minutes": 131})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "training_config.json").write_text(json.dumps(facts | more))
    results = [cell("convnet3", 1, 60, 90), cell("convnet3", 1, 120), cell("resnet18", 10, 1200)]
    lines = load("cost_tables").render_cost(results, tmp_path).splitlines()
    assert "| `one` | 31 | CPU | 217,600 | 165,000 |" in lines
    assert "| `two` | 31, and 18 of its teacher | CPU | 217,600 | 165,000 |" in lines
    assert "| `three` | 31, and 131 of refining, classifiers included | CPU | 217,600 | 165,000 |" in lines
    assert "| convnet3 | 1.5 (1 to 2) |  |" in lines
    assert "| resnet18 |  | 20 |" in lines


def test_contestants_take_turns_and_are_compared_within_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    speed = load("speed_bench")
    clock, turns = [0.0], []
    monkeypatch.setattr(speed.time, "perf_counter", lambda: clock[0])

    def contestant(name: str, rate: float) -> speed.Work:
        def work() -> int:
            turns.append(name)
            clock[0] += 10 / rate / (1 + 0.1 * (len(turns) // 5))  # the machine gets faster all the while
            return 10

        return work

    bench = speed.Bench(torch.device("cpu"), seconds=0.0, rounds=3)
    rows = bench.compete({"slow": contestant("slow", 100), "fast": contestant("fast", 300)}, "slow")
    assert turns == ["slow", "fast"] * 4
    assert rows[0]["ratio"] == [1, 1, 1]
    assert rows[1]["ratio"][0] == pytest.approx(3, rel=0.15)
    assert rows[1]["rate"][1] < rows[1]["rate"][0] <= rows[1]["rate"][2]


@pytest.mark.slow
def test_every_section_of_speed_is_measured_and_rendered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speed = load("speed")
    monkeypatch.setattr(speed, "Bench", partial(speed.Bench, batch=10, step_batch=4))
    arguments = ["--rounds", "1", "--seconds", "0", "--scale", "0.001", "--device", "cpu", "--out", str(tmp_path)]
    path = speed.main([*arguments, "--sections", "generator"])
    assert list(json.loads(path.read_text())) == ["generator"]
    others = [name for name in speed.SECTIONS if name != "generator"]
    assert speed.main([*arguments, "--sections", *others]) == path
    found = json.loads(path.read_text())
    assert list(found) == list(speed.SECTIONS)
    assert found["loader"]["command"].startswith("python benchmarks/speed.py --rounds 1")
    assert {row["classes"] for row in found["growth"]["rows"]} == {10, 100, 1000}
    assert 0 < found["profile"]["synthesis"] < 1
    tables = load("speed_tables")
    rendered = (render({"cpu": found}, {"mnist": "98.7"}) for render in (tables.render_details, tables.render_summary))
    details, summary = rendered
    assert all(f"**{title}** (CPU)" in details for title in tables.TITLES.values())
    assert summary.count("\n|") == 14
    assert "| the original's way | " in details
    assert " | 98.7 | " in details


def test_a_measuring_process_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)a measuring process failed: .*ZeroDivisionError"):
        load("speed_bench").in_process("1 / 0")


def test_the_originals_generator_comes_from_a_checkout_or_is_missed(tmp_path: Path) -> None:
    original, spec = load("original"), KNOWN_SPECS["fashion_mnist"]
    with pytest.raises(FileNotFoundError, match="--original wants a checkout of the DiM paper's code"):
        original.load_generator(tmp_path, spec)
    code = "class Generator:\n    def __init__(self, args):\n        self.data = args.data\n"
    (tmp_path / "gan_model.py").write_text(code)
    assert original.load_generator(tmp_path, spec).data == "fashion"
    noise = original.draw_noise(torch.tensor([3, 0]), 10)
    assert noise.shape == (2, 100)
    assert torch.equal(noise[:, :10], torch.eye(10)[[3, 0]])


def test_the_readme_is_up_to_date() -> None:
    assert load("report").main(["--check"]) == 0


def test_figures_hold_what_they_show_and_are_drawn_anew_when_it_changes(tmp_path: Path) -> None:
    plots = load("plots")

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


def test_names_in_a_figure_do_not_lie_on_one_another() -> None:
    ends = [(6.0, 77.7), (6.0, 77.5), (2.5, 79.7), (6.0, 71.0), (6.0, 77.7)]
    heights = load("plots").label_heights(ends)
    column = sorted(height for height, (x, _) in zip(heights, ends, strict=True) if x == 6)
    assert all(above - below >= 0.9 for below, above in itertools.pairwise(column))
    assert max(abs(height - y) for height, (_, y) in zip(heights, ends, strict=True)) < 2
    assert heights[2] == 79.7


def test_a_bundled_generators_card_states_what_was_measured(codes_folder: Path) -> None:
    cards = load("cards")

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
