"""The classifiers of the distillation literature, small and exact, in a dict of builders."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from dim_data.images import ImageSpec

__all__ = ["CLASSIFIERS", "ConvNet", "ResNet", "usual_convnet"]


class ConvNet(nn.Module):
    """ConvNet-D: D blocks of 3x3 convolution, affine instance norm, ReLU and 2x2 average pooling; a linear head.

    With one input channel the first convolution pads by 3, so that 28 pixels become 32 (DC, 2006.05929): by 2 ahead of
    it and by 1 as the others, since a CPU takes seven times as long for the gradient of a convolution that pads by 3.
    0.32 M parameters for CIFAR-10.
    """

    def __init__(self, spec: ImageSpec, width: int = 128, depth: int = 3) -> None:
        super().__init__()
        border = 2 if spec.channels == 1 else 0
        self.border = nn.ZeroPad2d(border)
        size = spec.size + 2 * border
        blocks: list[nn.Module] = []
        for index in range(depth):
            inputs = width if index else spec.channels
            blocks.append(
                nn.Sequential(
                    nn.Conv2d(inputs, width, 3, padding=1),
                    nn.GroupNorm(width, width),
                    nn.ReLU(),
                    nn.AvgPool2d(2),
                )
            )
            size //= 2
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Linear(width * size * size, spec.num_classes)

    def features(self, images: Tensor) -> list[Tensor]:
        """Normalised images (B, C, H, W) to the output of each block, then the logits (B, num_classes)."""
        outputs, images = [], self.border(images)
        for block in self.blocks:
            images = block(images)
            outputs.append(images)
        return [*outputs, self.head(images.flatten(1))]

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, C, H, W) to logits (B, num_classes)."""
        return self.features(images)[-1]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm and a shortcut; downsampling by stride or by average pooling."""

    def __init__(self, inputs: int, outputs: int, downsample: bool, average: bool) -> None:
        super().__init__()
        stride = 2 if downsample and not average else 1
        pool = nn.AvgPool2d(2) if downsample and average else nn.Identity()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            pool,
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if downsample or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), pool, nn.BatchNorm2d(outputs)
            )
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H', W')."""
        return self.relu(self.body(x) + self.shortcut(x))


class ResNet(nn.Module):
    """The CIFAR ResNet: 3x3 stem, four stages of basic blocks, global average pooling, a linear head.

    Args:
        spec: What it classifies.
        blocks: Basic blocks in each of the four stages: 1 is ResNet-10, 2 is ResNet-18.
        width: Planes of the first stage, doubled in each; 64 is the standard net, 32 the DiM paper's.
        average: ResNet-AP: average pooling in place of strides.
    """

    def __init__(self, spec: ImageSpec, blocks: int = 2, width: int = 64, average: bool = False) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(spec.channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        stages: list[nn.Module] = []
        inputs = width
        for stage in range(4):
            layers: list[nn.Module] = []
            for index in range(blocks):
                layers.append(BasicBlock(inputs, width << stage, stage > 0 and index == 0, average))
                inputs = width << stage
            stages.append(nn.Sequential(*layers))
        self.stages = nn.ModuleList(stages)
        self.head = nn.Linear(inputs, spec.num_classes)

    def features(self, images: Tensor) -> list[Tensor]:
        """Normalised images (B, C, H, W) to the output of each stage, then the logits (B, num_classes)."""
        outputs = [self.stem(images)]
        for stage in self.stages:
            outputs.append(stage(outputs[-1]))
        return [*outputs[1:], self.head(outputs[-1].mean((2, 3)))]

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, C, H, W) to logits (B, num_classes)."""
        return self.features(images)[-1]


CLASSIFIERS: dict[str, Callable[[ImageSpec], nn.Module]] = {
    **{f"convnet{depth}": partial(ConvNet, depth=depth) for depth in (3, 4, 5)},
    **{
        f"resnet{depth}{'_ap' if average else ''}{'_half' if width == 32 else ''}": partial(
            ResNet, blocks=blocks, width=width, average=average
        )
        for depth, blocks in ((10, 1), (18, 2))
        for average in (False, True)
        for width in (64, 32)
    },
}
"""Builders by name. ``convnet3`` to ``convnet5`` differ in depth: :func:`usual_convnet`. ``*_half`` are the DiM paper's
half-width nets, ``*_ap`` pool instead of striding."""


def usual_convnet(spec: ImageSpec) -> str:
    """The name of the ConvNet that the field uses at a size: one block more for each time that 32 pixels double.

    ConvNet-3 up to 32 pixels, ConvNet-4 up to 64, ConvNet-5 up to 128, so that 4x4 are left before the linear head.
    """
    return f"convnet{3 + spec.doublings}"
