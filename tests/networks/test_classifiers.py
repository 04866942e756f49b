from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from conftest import make_spec
from dim_data.networks.building import build_classifier
from dim_data.networks.classifiers import CLASSIFIERS, ConvNet, ResNet, usual_convnet


def millions(name: str) -> float:
    with torch.device("meta"):
        model = build_classifier(name, make_spec(3, 32, 10))
    return sum(p.numel() for p in model.parameters()) / 1e6


def test_names() -> None:
    depths = [f"resnet{depth}{ap}{half}" for depth in (10, 18) for ap in ("", "_ap") for half in ("", "_half")]
    assert sorted(CLASSIFIERS) == sorted(["convnet3", "convnet4", "convnet5", *depths])


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("convnet3", 0.32),
        ("resnet18_half", 2.80),
        ("resnet18", 11.17),
        ("resnet10_half", 1.23),
        ("resnet10", 4.90),
        ("resnet18_ap", 11.17),
        ("resnet10_ap_half", 1.23),
    ],
)
def test_parameters_for_cifar10(name: str, size: float) -> None:
    assert round(millions(name), 2) == size


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32), (3, 64), (1, 32), (3, 28)])
@pytest.mark.parametrize("name", ["convnet3", "convnet4", "resnet10_half", "resnet10_ap_half"])
def test_shapes_and_features(name: str, channels: int, size: int, device: torch.device) -> None:
    spec = make_spec(channels, size, 7)
    model = build_classifier(name, spec).to(device).eval()
    images = torch.rand(2, channels, size, size, device=device)
    with torch.no_grad():
        features, logits = model.features(images), model(images)
    assert logits.shape == (2, 7)
    assert torch.equal(features[-1], logits)
    sides = [f.shape[-1] for f in features[:-1]]
    if name.startswith("convnet"):
        top = 32 if channels == 1 and size == 28 else size + 4 * (channels == 1)
        assert sides == [top // 2**block for block in range(1, 1 + int(name[-1]))]
    else:
        assert sides[0] == size
        assert len(sides) == 4
    assert all(f.shape[0] == 2 for f in features)


def test_grey_images_are_padded_as_by_three() -> None:
    model, images = ConvNet(make_spec(1, 28)), torch.rand(2, 1, 28, 28)
    first = model.blocks[0][0]
    wanted = nn.functional.conv2d(images, first.weight, first.bias, padding=3)
    assert torch.allclose(first(model.border(images)), wanted, atol=1e-6)


def test_the_head_is_told_the_truth_about_every_size() -> None:
    for size in range(28, 129, 20):
        for channels in (1, 3):
            spec = make_spec(channels, size)
            with torch.device("meta"):
                images = torch.rand(2, channels, size, size)
                for model in (ConvNet(spec, width=4), ResNet(spec, 1, 4), ResNet(spec, 1, 4, average=True)):
                    assert model(images).shape == (2, 3)


@pytest.mark.parametrize(
    ("size", "name"), [(28, "convnet3"), (32, "convnet3"), (36, "convnet4"), (64, "convnet4"), (68, "convnet5")]
)
def test_the_usual_convnet_grows_with_the_images(size: int, name: str) -> None:
    assert usual_convnet(make_spec(3, size)) == name


@pytest.mark.parametrize("size", [32, 64, 128])
def test_the_usual_convnet_leaves_four_by_four(size: int) -> None:
    spec = make_spec(3, size)
    with torch.device("meta"):
        assert build_classifier(usual_convnet(spec), spec).head.in_features == 128 * 4 * 4


def test_average_pooling_replaces_strides() -> None:
    with torch.device("meta"):
        strided, pooled = (build_classifier(name, make_spec()) for name in ("resnet18", "resnet18_ap"))
    strides = [{m.stride for m in model.modules() if isinstance(m, nn.Conv2d)} for model in (strided, pooled)]
    assert strides == [{(1, 1), (2, 2)}, {(1, 1)}]


def test_convnet_normalises_each_image_alone() -> None:
    model, images = ConvNet(make_spec(), width=8), torch.rand(4, 3, 32, 32)
    torch.testing.assert_close(model(images)[:1], model(images[:1]))


def test_every_call_builds_a_fresh_one() -> None:
    first, second = (build_classifier("convnet3", make_spec()) for _ in range(2))
    assert not torch.equal(first.head.weight, second.head.weight)


def test_a_callable_is_given_the_spec() -> None:
    def build(spec: Any) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(spec.channels * spec.size**2, spec.num_classes))

    assert build_classifier(build, make_spec(1, 28, 5))(torch.rand(2, 1, 28, 28)).shape == (2, 5)


def test_bad_classifiers_raise() -> None:
    with pytest.raises(ValueError, match=r"unknown classifier 'vgg': choose from \['convnet3', 'convnet4'"):
        build_classifier("vgg", make_spec())
    with pytest.raises(TypeError, match=r"a classifier must be an nn.Module, the builder returned int"):
        build_classifier(lambda spec: 3, make_spec())
