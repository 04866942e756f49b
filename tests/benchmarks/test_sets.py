"""The image sets of the tables: where they are read, and what is said of numbers on them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import reproduce
from accuracy.cells import load_results
from accuracy.sets import DATASETS, PAPERS, convnet_of, real_images, said_of, unofficial
from accuracy.tables import headlines, render
from dim_data.images import KNOWN_SPECS
from dim_data.networks import usual_convnet


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name, size, classes in (("eurosat", 64, 10), ("svhn", 32, 10)):
        arrays = {}
        for split, count in (("train", 40), ("test", 20)):
            arrays[f"{split}_images"] = rng.integers(0, 256, (count, size, size, 3), np.uint8)
            arrays[f"{split}_labels"] = np.arange(count) % classes
        np.savez(tmp_path / f"{name}.npz", **arrays)
    return tmp_path


def test_the_papers_sets_are_those_the_library_knows() -> None:
    assert set(PAPERS) == set(KNOWN_SPECS)
    assert {name: convnet_of(name) for name in PAPERS} == {n: usual_convnet(s) for n, s in KNOWN_SPECS.items()}


def test_eurosat_is_read_from_its_file(root: Path) -> None:
    data = real_images("eurosat", "train", root)
    assert (len(data), data.spec.size, data.spec.mirror, data.spec.name) == (40, 64, True, "eurosat")
    assert convnet_of("eurosat") == usual_convnet(data.spec)
    assert (data.spec.classes[0], data.spec.classes[9]) == ("AnnualCrop", "SeaLake")
    assert len(real_images("eurosat", "test", str(root))) == 20
    assert not real_images("svhn", "train", root).spec.mirror
    with pytest.raises(FileNotFoundError, match=r"say where eurosat.npz is: --data-root, or DIM_DATA_ROOT"):
        real_images("eurosat", "train", None)


def test_a_number_says_what_it_was_measured_on() -> None:
    assert unofficial("svhn", 26_032) == ""
    assert unofficial("svhn", 9_223) == "9,223 digits of held-out training photos, not the official test set"
    assert unofficial("eurosat", 1_500) == "1,500 held-out images, as there is no official test set"
    assert {unofficial(name, 10_000) for name in DATASETS if name not in ("svhn", "eurosat")} == {""}


@pytest.mark.usefixtures("small_classifiers")
def test_a_cell_keeps_it_and_the_tables_say_it(root: Path) -> None:
    for name in ("svhn", "eurosat"):
        arguments = [name, "--row", "real", "--ipc", "1", "--epochs", "1", "--seeds", "0", "--device", "cpu"]
        arguments += ["--classifier", "convnet3"] if name == "svhn" else ["--classifier", "resnet10"]
        reproduce.main([*arguments, "--data-root", str(root), "--out", str(root / "results")])
    cells = load_results(root / "results")
    said = "20 digits of held-out training photos, not the official test set"
    assert {cell["dataset"]: cell["tested_on"] for cell in cells}["svhn"] == said
    assert f"| SVHN ({said}), ConvNet-3 | real images, fresh" in headlines(cells)
    assert f"**SVHN** ({said}), convnet3, recipe `tuned`" in render(cells)
    assert "**EuroSAT** (20 held-out images, as there is no official test set), other classifiers" in render(cells)
    arrays = dict(np.load(root / "svhn.npz"))
    np.savez(root / "svhn.npz", **{**arrays, "test_images": arrays["test_images"][:10], "test_labels": np.arange(10)})
    with pytest.raises(ValueError, match="is of other test images than these 10: choose another --out"):
        reproduce.main(
            ["svhn", "--row", "real", "--ipc", "1", "--data-root", str(root), "--out", str(root / "results")]
        )
    official = {key: value for key, value in cells[1].items() if key != "tested_on"}
    assert said_of([official]) == ""
    with pytest.raises(ValueError, match="cells of one set were tested on different images"):
        said_of([cells[1], official])


def test_what_others_publish_stands_beside_it(tmp_path: Path) -> None:
    claim = {"dataset": "mnist", "classifier": "convnet3", "method": "X", "accuracies": [1.5, None, 3]}
    (tmp_path / "published.json").write_text(json.dumps({"by_set": [claim]}))
    assert headlines([], tmp_path / "published.json").splitlines()[2:] == [
        "| MNIST, ConvNet-3 | X, as published | 1.5 |  | 3 |"
    ]
