"""The bundled sets under torchvision's signatures, and what is said to who uses those with the other class."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import pytest
from torchvision import datasets

import dim_data
from dim_data.generator.model import Generator
from dim_data.loading.dataset import DistilledDataset
from dim_data.loading.named import (
    DistilledCIFAR10,
    DistilledEuroSAT,
    DistilledFashionMNIST,
    DistilledMNIST,
    DistilledSVHN,
)

WITH_TRAIN = {
    DistilledCIFAR10: ("cifar10", datasets.CIFAR10),
    DistilledMNIST: ("mnist", datasets.MNIST),
    DistilledFashionMNIST: ("fashion_mnist", datasets.FashionMNIST),
}
NAMED = WITH_TRAIN | {DistilledSVHN: ("svhn", datasets.SVHN), DistilledEuroSAT: ("eurosat", datasets.EuroSAT)}
PART = {DistilledSVHN: {"split": "train"}, DistilledEuroSAT: {}}
"""What torchvision's set is told which part of the images to hold; the others take ``train``."""


@pytest.mark.parametrize("kind", NAMED)
def test_only_the_name_of_the_class_is_changed(kind: type[DistilledDataset]) -> None:
    bundled, replaced = NAMED[kind]
    part: dict[str, Any] = PART.get(kind, {"train": True})
    made = kind("./data", **part, transform=type, download=True, ipc=2)  # type: ignore[call-arg]
    other = kind("./data", *part.values(), type, None, True, ipc=2)  # type: ignore[call-arg,misc]
    plain = DistilledDataset(bundled, ipc=2)
    for dataset in (made, other):
        assert (dataset.source, dataset.spec, len(dataset)) == (bundled, plain.spec, 20)
        assert (dataset.root, dataset.train, dataset.transform) == ("./data", True, type)
        assert repr(dataset.data) == repr(plain.data)
    mine = list(inspect.signature(kind.__init__).parameters)
    theirs = list(inspect.signature(replaced.__init__).parameters)
    assert mine[: len(theirs)] == theirs
    assert getattr(dim_data, kind.__name__) is kind
    for twin in (pickle.loads(pickle.dumps(made)), copy.deepcopy(made), made.split(0.5)[0]):
        assert type(twin) is kind
        assert twin.root == "./data"


@pytest.mark.parametrize("kind", WITH_TRAIN)
def test_a_test_set_is_that_of_torchvision(kind: type[DistilledDataset]) -> None:
    name = WITH_TRAIN[kind][1].__name__
    sentence = rf"synthetic images are never one: .* torchvision.datasets.{name}\(root, train=False\)"
    with pytest.raises(ValueError, match=sentence):
        kind("./data", train=False)


@pytest.mark.parametrize("split", ["test", "extra", "val"])
def test_only_the_training_digits_of_svhn_were_distilled(split: str) -> None:
    sentence = rf"^split='{split}' is not what was distilled: .* torchvision.datasets.SVHN\(root, split='test'\)$"
    with pytest.raises(ValueError, match=sentence):
        DistilledSVHN("./data", split=split)


def test_train_false_points_to_images_that_are_there() -> None:
    with pytest.raises(ValueError, match=r"SVHN\(root, split='test'\)$"):
        DistilledSVHN(train=False)
    with pytest.raises(ValueError, match=r"EuroSAT\(root\) that are numbered past 600$"):
        DistilledEuroSAT(train=False)


def test_svhn_holds_its_pictures_as_torchvision_does() -> None:
    made = DistilledSVHN(ipc=2)
    assert made.data.shape == (20, 3, 32, 32)
    assert made.labels.tolist() == [*range(10), *range(10)]
    assert made.split == "train"
    assert [type(part).__name__ for part in made.split(0.5)] == ["DistilledSVHN", "DistilledSVHN"]


def test_eurosat_has_no_files_for_a_loader() -> None:
    with pytest.raises(ValueError, match=r"^loader= reads files, and here are none: .*transform="):
        DistilledEuroSAT("./data", loader=type)  # type: ignore[arg-type]
    image, label = DistilledEuroSAT(ipc=1)[9]
    assert (image.size, image.mode, label) == ((64, 64), "RGB", 9)
    assert DistilledEuroSAT(ipc=1).classes[9] == "SeaLake"


def test_class_names_are_those_of_torchvision(tiny_codes: Generator) -> None:
    for kind in (DistilledMNIST, DistilledFashionMNIST):
        made, replaced = kind(ipc=1), NAMED[kind][1]
        assert made.classes == replaced.classes
        assert made.class_to_idx == {name: label for label, name in enumerate(replaced.classes)}
    assert DistilledMNIST(source=tiny_codes).classes == ["class0", "class1", "class2"]


def test_another_source_and_options_go_through(tiny_codes: Generator) -> None:
    dataset = DistilledCIFAR10(source=tiny_codes, ipc=3, seed=4, fixed=True)
    assert (dataset.generator, dataset.ipc, dataset.seed, dataset.fixed) == (tiny_codes, 3, 4, True)
    with pytest.raises(TypeError, match="unexpected keyword argument 'batch_size'"):
        DistilledCIFAR10(batch_size=3)


OURS = r"write DistilledDataset\('{1}', ipc=50{0}\), or, with torchvision's arguments as they are, "
THEIRS = r"Distilled{2}\(root, {3}{0}, download=True, ipc=50\)$"


@pytest.mark.parametrize(
    ("args", "options", "what", "kept"),
    [
        ((), {"root": "./data", "train": True, "transform": type, "download": True}, "root=, download=", "transform"),
        (("./data", True, type, None, True), {}, "5 positional arguments", "transform"),
        (("./data",), {"download": True}, "download=", ""),
        (("./data",), {"split": "train", "target_transform": type}, "split=", "target_transform"),
    ],
)
def test_torchvisions_arguments_get_the_line_to_write(
    args: tuple[Any, ...], options: dict[str, Any], what: str, kept: str
) -> None:
    kept = f", {kept}={kept}" if kept else ""
    named = ("svhn", "SVHN", "split='train'") if "split" in options else ("cifar10", "CIFAR10", "train=True")
    sentence = f"^DistilledDataset takes no {what}, as torchvision's sets do: " + (OURS + THEIRS).format(kept, *named)
    with pytest.raises(TypeError, match=sentence):
        DistilledDataset(*args, **options)


def test_the_signature_is_still_to_be_seen() -> None:
    parameters = inspect.signature(DistilledDataset).parameters
    assert list(parameters)[:3] == ["source", "ipc", "transform"]
    assert parameters["ipc"].kind is inspect.Parameter.KEYWORD_ONLY
