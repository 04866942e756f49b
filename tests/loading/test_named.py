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
from dim_data.loading.named import DistilledCIFAR10, DistilledFashionMNIST, DistilledMNIST

NAMED = {
    DistilledCIFAR10: ("cifar10", datasets.CIFAR10),
    DistilledMNIST: ("mnist", datasets.MNIST),
    DistilledFashionMNIST: ("fashion_mnist", datasets.FashionMNIST),
}


@pytest.mark.parametrize("kind", NAMED)
def test_only_the_name_of_the_class_is_changed(kind: type[DistilledDataset]) -> None:
    bundled, replaced = NAMED[kind]
    made = kind("./data", train=True, transform=type, download=True, ipc=2)  # type: ignore[call-arg]
    other = kind("./data", True, type, None, True, ipc=2)  # type: ignore[call-arg,arg-type,misc]
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


@pytest.mark.parametrize("kind", NAMED)
def test_a_test_set_is_that_of_torchvision(kind: type[DistilledDataset]) -> None:
    name = NAMED[kind][1].__name__
    sentence = rf"synthetic images are never one: .* torchvision.datasets.{name}\(root, train=False\)"
    with pytest.raises(ValueError, match=sentence):
        kind("./data", train=False)


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


OURS = r"write DistilledDataset\('cifar10', ipc=50{0}\), or, with torchvision's arguments as they are, "
THEIRS = r"DistilledCIFAR10\(root, train=True{0}, download=True, ipc=50\)$"


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
    sentence = f"^DistilledDataset takes no {what}, as torchvision's sets do: " + (OURS + THEIRS).format(kept)
    with pytest.raises(TypeError, match=sentence):
        DistilledDataset(*args, **options)


def test_the_signature_is_still_to_be_seen() -> None:
    parameters = inspect.signature(DistilledDataset).parameters
    assert list(parameters)[:3] == ["source", "ipc", "transform"]
    assert parameters["ipc"].kind is inspect.Parameter.KEYWORD_ONLY
