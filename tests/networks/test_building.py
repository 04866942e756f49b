"""Classifiers of one's own: what can be trained is, and what cannot is refused before any training."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from conftest import make_data, make_spec
from dim_data import evaluate
from dim_data.generator.labelling import opinions
from dim_data.images.specs import ImageSpec
from dim_data.networks.building import build_classifier, check_classifier, classifier_builder, logits_of
from dim_data.networks.classifiers import ConvNet
from dim_data.protocol.recipes import RECIPES
from dim_data.protocol.training import ClassifierStep, train_classifier

SPEC = make_spec(3, 32)
TRAIN, TEST = make_data(3, 32), make_data(3, 32, seed=1)


@dataclass
class Output:
    logits: Tensor


class Giving(nn.Module):
    """Gives what a function makes of a classifier's logits."""

    def __init__(self, make: Any, classes: int = 3) -> None:
        super().__init__()
        self.make = make
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, classes))

    def forward(self, images: Tensor) -> Any:
        return self.make(self.body(images))


def no_module(num_classes: int = 10) -> Any:
    return num_classes


# What builds one --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "builder",
    [
        torchvision.models.resnet18,  # would take the spec for the name of weights, and download them
        partial(torchvision.models.resnet18, num_classes=3),
        torchvision.models.vit_b_16,
        lambda: ConvNet(SPEC),
        nn.Linear,
        no_module,
        lambda pretrained=False, **options: ConvNet(SPEC),  # as timm's were
    ],
)
def test_what_takes_no_spec_is_not_called(builder: Any) -> None:
    with pytest.raises(TypeError, match="a classifier is built by a function of an ImageSpec, and ") as error:
        evaluate("no such generator", "no such data", builder)
    assert re.search(
        r" is none: .*\. Pass one, such as lambda spec: .*\(num_classes=spec.num_classes\)", str(error.value)
    )


def test_the_reason_is_said() -> None:
    with pytest.raises(TypeError, match=r"and resnet18 is none: too many positional arguments\. Pass one, such"):
        classifier_builder(torchvision.models.resnet18)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"and no_module is none: the first thing it takes is num_classes=10\. Pass"):
        classifier_builder(no_module)


@pytest.mark.parametrize(
    "builder", [ConvNet, partial(ConvNet, width=8), lambda spec: ConvNet(spec), lambda spec=None: ConvNet(spec)]
)
def test_what_takes_a_spec_is_called(builder: Any) -> None:
    assert isinstance(build_classifier(builder, SPEC), ConvNet)


def test_a_module_is_no_builder() -> None:
    sentence = r"the classifier is a ConvNet already, and each seed trains a fresh one: pass a function that builds it"
    with pytest.raises(TypeError, match=sentence):
        evaluate("no such generator", "no such data", ConvNet(SPEC))  # type: ignore[arg-type]
    for other in (None, 3, ["convnet3"]):
        with pytest.raises(TypeError, match=r"a classifier is a name, one of \['convnet3', .*, or a function"):
            classifier_builder(other)  # type: ignore[arg-type]


def test_the_same_module_is_not_trained_twice() -> None:
    model = ConvNet(SPEC, width=8, depth=1)
    with pytest.raises(ValueError, match=r"builder gave the same ConvNet again, trained already: each seed trains"):
        evaluate(TRAIN, TEST, lambda spec: model, ipc=2, epochs=1, seeds=(0, 1), device="cpu")
    assert evaluate(TRAIN, TEST, lambda spec: model, ipc=2, epochs=1, seeds=(0,), device="cpu").classifier == "ConvNet"


# What one gives ---------------------------------------------------------------------------------------------

WRONG: dict[str, tuple[Any, type[Exception], str]] = {
    "classes": (
        lambda spec: Giving(lambda logits: logits, 1000),
        ValueError,
        r"a classifier must give logits of shape \(2, 3\), got \(2, 1000\): build it for 3 classes, such as lambda",
    ),
    "one": (lambda spec: Giving(lambda x: x[:, 0]), ValueError, r"got \(2,\): build it for 3 classes"),
    "tuple": (
        lambda spec: Giving(lambda logits: (logits, None)),
        TypeError,
        r"must give logits, a tensor of shape \(2, 3\), got tuple: wrap it in a module that gives the logits alone",
    ),
    "dict": (lambda spec: Giving(lambda logits: {"out": logits}), TypeError, "got dict: wrap it"),
    "nan": (lambda spec: Giving(lambda x: x * torch.nan), ValueError, "Giving gives NaN or infinite logits before any"),
    "inf": (lambda spec: Giving(lambda x: x / 0), ValueError, "gives NaN or infinite logits before any training"),
    "frozen": (
        lambda spec: ConvNet(spec).requires_grad_(False),
        ValueError,
        "the classifier ConvNet has no parameter to train: let some of them require gradients",
    ),
    "empty": (lambda spec: nn.Identity(), ValueError, "the classifier Identity has no parameter to train"),
    "grey": (
        lambda spec: ConvNet(make_spec(1, 28)),
        ValueError,
        r"the classifier ConvNet fails on float32 images of shape \(2, 3, 32, 32\): Given groups=1, weight of size",
    ),
    "double": (lambda spec: ConvNet(spec).double(), ValueError, "fails on float32 images of shape"),
}


@pytest.mark.parametrize("name", WRONG)
def test_one_batch_is_tried_before_any_training(name: str) -> None:
    build, kind, sentence = WRONG[name]
    steps: list[ClassifierStep] = []
    with pytest.raises(kind, match=sentence):
        evaluate(TRAIN, TEST, build, ipc=2, epochs=1, seeds=(0,), device="cpu", on_step=steps.append)
    assert not steps
    loop = train_classifier(build(SPEC), TRAIN, RECIPES["tuned"], ipc=2, epochs=1, device=torch.device("cpu"))
    with pytest.raises(kind, match=sentence):
        next(loop)


def test_what_it_gives_in_training_counts_too() -> None:
    """Inception gives a tuple there, and a tensor when it is tested."""

    class TwoFaced(Giving):
        def forward(self, images: Tensor) -> Any:
            logits = self.body(images)
            return (logits, logits) if self.training else logits

    with pytest.raises(TypeError, match=r"must give logits, a tensor of shape \(6, 3\), got tuple: wrap it"):
        evaluate(TRAIN, TEST, lambda spec: TwoFaced(None), ipc=2, epochs=1, seeds=(0,), device="cpu")


def test_logits_may_be_part_of_an_output() -> None:
    how: dict[str, Any] = {"ipc": 4, "epochs": 3, "seeds": (0,), "device": "cpu"}
    bare, within = (
        evaluate(TRAIN, TEST, lambda spec, make=make: Giving(make), **how) for make in (lambda x: x, Output)
    )
    assert bare.accuracies == within.accuracies
    logits = torch.zeros(2, 3)
    assert logits_of(Output(logits), 2, 3) is logits
    teacher = Giving(Output).eval()
    found = opinions([teacher], TEST.images[:4], SPEC)
    torch.testing.assert_close(found, opinions([teacher.body], TEST.images[:4], SPEC))


def test_teachers_are_tried_as_well() -> None:
    with pytest.raises(TypeError, match="a teacher must give logits, a tensor of shape"):
        opinions([Giving(lambda logits: (logits,))], TEST.images[:4], SPEC)
    with pytest.raises(ValueError, match=r"a teacher must give logits of shape \(4, 3\), got \(4, 5\)"):
        opinions([Giving(lambda logits: logits, 5)], TEST.images[:4], SPEC)


def test_the_trial_leaves_no_trace() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Dropout(0.5), nn.Linear(3 * 32 * 32, 3))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    for training in (True, False):
        model.train(training)
        check_classifier(model, SPEC)
        assert model.training == training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_torchvisions_nets_are_trained() -> None:
    found = evaluate(
        TRAIN,
        TEST,
        lambda spec: torchvision.models.resnet18(num_classes=spec.num_classes),
        ipc=2,
        epochs=1,
        seeds=(0,),
        device="cpu",
    )
    assert found.classifier == "ResNet"


def test_lazy_layers_get_the_seeds_weights() -> None:
    weights: list[Tensor] = []

    def build(spec: ImageSpec) -> nn.Module:
        model = nn.Sequential(nn.Flatten(), nn.LazyLinear(spec.num_classes))
        model[1].register_forward_hook(lambda layer, *_: weights.append(layer.weight.detach().clone()))
        return model

    for seeds in ((0,), (0,), (1,)):
        evaluate(TRAIN, TEST, build, ipc=2, epochs=1, seeds=seeds, device="cpu")
    first, again, other = weights[0], weights[len(weights) // 3], weights[2 * len(weights) // 3]
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
