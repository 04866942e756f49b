"""The networks a generator's config may name: a registry of decoders, never code from a repository.

A decoder maps ``(latents, labels)`` to images in [-1, 1]; :class:`~dim_data.generator.Generator` turns
those into public [0, 1] images. Every size in a config is checked against the bounds here before a network
is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dim_data.images import SIZE_RANGE, ImageSpec
from dim_data.networks.bounds import bounded, check_bounds

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "CompactDecoder",
    "DimDecoder",
    "DoublingConv",
    "base_size",
    "parse_options",
    "reached_sizes",
]


MAX_BASE = 32


@dataclass(frozen=True)
class DimOptions:
    """Options of the paper's generator: noise dimensions and channels."""

    latent_dim: int = bounded(100, 2, 1024)
    width: int = bounded(196, 4, 1024)


@dataclass(frozen=True)
class CompactOptions:
    """Options of the compact decoder.

    ``width`` channels at the base resolution, half of it at twice that, ``top_width`` at full resolution;
    ``blocks`` residual blocks at the base. A stored code is a map of ``code_channels`` channels at the base
    resolution with ``code_levels`` levels each; a noise latent is a vector of ``latent_dim``. The base resolution is
    ``base`` pixels, the size halved twice or more; 0 halves it until 8 pixels or fewer are left, or an odd number.
    ``smooth`` is 1 where the last doubling is smoothed, see :class:`SmoothShuffle`.
    """

    width: int = bounded(160, 8, 1024)
    top_width: int = bounded(24, 4, 256)
    blocks: int = bounded(2, 1, 16)
    code_channels: int = bounded(6, 1, 64)
    code_levels: int = bounded(4, 2, 256)
    latent_dim: int = bounded(64, 2, 1024)
    base: int = bounded(0, 0, MAX_BASE)
    smooth: int = bounded(0, 0, 1)


def base_size(size: int, wanted: int = 0) -> int:
    """The resolution that decoding starts from: ``size`` halved at least twice, until at most 8 or odd.

    Args:
        size: Of the images.
        wanted: A resolution that is asked for; 0: none is.

    Raises:
        ValueError: Doubling does not lead from there to ``size``, in two steps or more.
    """
    if wanted:
        if wanted not in [size >> halvings for halvings in range(2, size.bit_length()) if size % (1 << halvings) == 0]:
            raise ValueError(
                f"images of {size} pixels cannot be reached from a base of {wanted} by doubling twice or more"
            )
        return wanted
    base = size
    while base % 2 == 0 and (base > 8 or base * 2 >= size):
        base //= 2
    if base * 4 > size or base > MAX_BASE:
        raise ValueError(f"images of {size} pixels cannot be reached by doubling: choose a multiple of 4")
    return base


class DimDecoder(nn.Module):
    """The generator of DiM (arXiv 2303.04707): a conditional DCGAN with BatchNorm after every layer.

    The first ``num_classes`` entries of the latent are overwritten by the one-hot label; a linear layer to
    4x4 (7x7 of 28 pixels: 4, 7, 14, 28), then transposed convolutions to full size with three 3x3
    convolutions at the second resolution and one at the third. 3.56 M parameters for CIFAR-10.
    """

    sources: ClassVar[tuple[str, ...]] = ("noise",)

    def __init__(self, spec: ImageSpec, options: DimOptions, source: str) -> None:
        super().__init__()
        if options.latent_dim <= spec.num_classes:
            raise ValueError(
                f"architecture 'dim' writes the one-hot label over the first numbers of the noise: latent_dim must be "
                f"more than {spec.num_classes}, the number of classes, or each has but one picture; got "
                f"{options.latent_dim}"
            )
        sizes = [spec.size]
        while sizes[0] > 4:
            sizes.insert(0, (sizes[0] + 1) // 2)
        if not self.reaches(spec.size):
            raise ValueError(f"architecture 'dim' cannot reach {spec.size} pixels from 4 by doubling")
        self.latent_shape = (options.latent_dim,)
        self.num_classes, width = spec.num_classes, options.width
        self.head = nn.Sequential(nn.Linear(options.latent_dim, width * 16), nn.BatchNorm1d(width * 16), nn.ReLU())
        layers: list[nn.Module] = []
        for step, (before, after) in enumerate(pairwise(sizes)):
            # 4 -> 7 needs a kernel of 3, all the doublings one of 4.
            kernel = 4 if after == 2 * before else 3
            layers += [nn.ConvTranspose2d(width, width, kernel, 2, 1), nn.BatchNorm2d(width), nn.ReLU()]
            for _ in range((3, 1, 0)[min(step, 2)]):
                layers += [nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Conv2d(width, spec.channels, 3, padding=1), nn.Tanh())

    @staticmethod
    def reaches(size: int) -> bool:
        """Whether 4, doubled, or doubled less one, comes to ``size``: 28 to 32, 49 to 64, 97 to 128."""
        while size > 4:
            size = (size + 1) // 2
        return size == 4

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Latents (B, latent_dim), labels (B,) to images (B, C, H, W) in (-1, 1)."""
        onehot = F.one_hot(labels, self.num_classes).to(latents.dtype)
        latents = torch.cat([onehot, latents[:, self.num_classes :]], 1)
        return self.body(self.head(latents).unflatten(1, (-1, 4, 4)))


class ResidualBlock(nn.Module):
    """``x + 0.3 * conv(act(conv(act(x))))``: no normalisation, so a sample never depends on its batch."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) to the same shape."""
        return x + 0.3 * self.second(F.leaky_relu(self.first(F.leaky_relu(x, 0.2)), 0.2))


class DoublingConv(nn.Conv2d):
    """A 3x3 convolution of an image doubled by nearest neighbour, without making the doubled image.

    Two of its neighbouring inputs are always equal, so their weights may be added up first: a transposed 4x4
    convolution of stride 2, with 4/9 of the multiplications.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, 2 H, 2 W)."""
        kernel = self.weight.flip(2, 3).transpose(0, 1)
        kernel = F.pad(kernel, (0, 1, 0, 0)) + F.pad(kernel, (1, 0, 0, 0))
        kernel = F.pad(kernel, (0, 0, 0, 1)) + F.pad(kernel, (0, 0, 1, 0))
        return F.conv_transpose2d(x, kernel, self.bias, stride=2, padding=1)


class SmoothShuffle(nn.PixelShuffle):
    """A pixel shuffle to twice the size, then [1 2 1] / 4 along both sides.

    The four pixels that a shuffle makes of one differ in a way of their own: pictures get a fine pattern which images
    lack, and to which classifiers that learned from images are blind. Here what repeats every two pixels comes to
    nothing.
    """

    def __init__(self) -> None:
        super().__init__(2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 4 C, H, W) to (B, C, 2 H, 2 W)."""
        x = super().forward(x)
        edge = x.new_full((1,), 0.25)  # made where x is: a copy to a GPU would have it waited for
        row = torch.cat([edge, 2 * edge, edge])
        return F.conv2d(x, (row[:, None] * row).expand(x.shape[1], 1, 3, 3), padding=1, groups=x.shape[1])


class CompactDecoder(nn.Module):
    """A decoder that works where pixels are few: wide at the base resolution, narrow at full size.

    0.25 GFLOP an image at 32x32, 1.2 M parameters; the last doubling is a pixel shuffle, smooth or not. Stored codes
    enter as a map, unconditionally: a decoder told the label could paint the class instead of the picture. Noise
    enters as a vector beside a label embedding.
    """

    sources: ClassVar[tuple[str, ...]] = ("noise", "codes")

    def __init__(self, spec: ImageSpec, options: CompactOptions, source: str) -> None:
        super().__init__()
        base, width, top = base_size(spec.size, options.base), options.width, options.top_width
        channels = options.code_channels
        if source == "noise":
            channels = max(16, options.code_channels)
            self.latent_shape: tuple[int, ...] = (options.latent_dim,)
            self.embedding = nn.Embedding(spec.num_classes, options.latent_dim)
            self.head = nn.Linear(2 * options.latent_dim, channels * base * base)
        else:
            self.latent_shape = (channels, base, base)
        self.map_shape = (channels, base, base)
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1)]
        layers += [ResidualBlock(width) for _ in range(options.blocks)]
        size = base
        while size < spec.size // 2:
            narrow = max(top, width // 2)
            # Weights are named by their place in this list, and files count a doubling as a layer of its own.
            layers += [nn.Identity(), DoublingConv(width, narrow, 3, padding=1), ResidualBlock(narrow)]
            width, size = narrow, size * 2
        shuffle = SmoothShuffle() if options.smooth else nn.PixelShuffle(2)
        layers += [nn.LeakyReLU(0.2), nn.Conv2d(width, 4 * top, 3, padding=1), shuffle]
        layers += [nn.LeakyReLU(0.2), nn.Conv2d(top, top, 3, padding=1)]
        layers += [nn.LeakyReLU(0.2), nn.Conv2d(top, spec.channels, 3, padding=1)]
        self.body = nn.Sequential(*layers)

    @staticmethod
    def reaches(size: int) -> bool:
        """Whether ``size`` can be halved twice: multiples of 4."""
        return size % 4 == 0

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Latents (B, *latent_shape), labels (B,) to images (B, C, H, W), near [-1, 1]."""
        if len(self.latent_shape) == 1:
            joined = torch.cat([latents, self.embedding(labels).to(latents.dtype)], 1)
            latents = self.head(joined).unflatten(1, self.map_shape)
        return self.body(latents)


@dataclass(frozen=True)
class Architecture:
    """A registered decoder: its class, its options and a sentence for ``--help`` and cards."""

    decoder: type[DimDecoder] | type[CompactDecoder]
    options: type[DimOptions] | type[CompactOptions]
    summary: str


ARCHITECTURES: dict[str, Architecture] = {
    "dim": Architecture(DimDecoder, DimOptions, "the generator of the DiM paper"),
    "compact": Architecture(CompactDecoder, CompactOptions, "few channels where pixels are many; noise or codes"),
}


def _registered(architecture: str) -> Architecture:
    if not isinstance(architecture, str) or architecture not in ARCHITECTURES:
        raise ValueError(f"unknown architecture {architecture!r}: choose from {sorted(ARCHITECTURES)}")
    return ARCHITECTURES[architecture]


def reached_sizes(architecture: str) -> tuple[int, ...]:
    """The sizes in pixels that images of an architecture can have.

    Raises:
        ValueError: Unknown architecture.
    """
    decoder, (low, high) = _registered(architecture).decoder, SIZE_RANGE
    return tuple(size for size in range(low, high + 1) if decoder.reaches(size))


def parse_options(architecture: str, options: Mapping[str, Any]) -> DimOptions | CompactOptions:
    """Check a config's options against the architecture's fields and bounds.

    Raises:
        ValueError: Unknown architecture, unknown option, or an option out of bounds.
        TypeError: An option is not an int.
    """
    kind = _registered(architecture).options
    check_bounds(kind, options, f"architecture {architecture!r}")
    return kind(**options)
