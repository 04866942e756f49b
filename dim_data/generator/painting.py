"""Painting: a source of latents and a decoder that turns them into labelled pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dim_data.format import GeneratorConfig
from dim_data.generator.labelling import opinion
from dim_data.generator.sources import SOURCES, LatentSource, StoredCodes
from dim_data.images import ImageSpec, torch_defaults
from dim_data.networks import (
    ARCHITECTURES,
    ConvNet,
    autocast,
    channels_last,
    in_float32,
    is_spawning,
    parse_options,
    share_as_one_buffer,
    side_by_side,
)

__all__ = ["CHUNK", "Painter"]

CHUNK = {"cpu": 16, "cuda": 512}
"""Images in one forward pass of :meth:`Painter.synthesize`, by device. Kernels may round differently for
different batch shapes, so the shape is always this one: a sample cannot depend on the batch it came in."""


class Painter(nn.Module):
    """The part of a :class:`~dim_data.generator.Generator` that draws latents and decodes them.

    Args:
        config: What to build; weights are freshly initialised.

    Attributes:
        config: The :class:`~dim_data.format.GeneratorConfig`.
        source: Where latents come from.
        decoder: The network, ``(latents, labels)`` to images in [-1, 1].
        teacher: Where soft labels are not stored: the classifier that gives them.
        stored: The weights as they lay in the file it was loaded from, by the file's names; empty if there was none.
    """

    source: LatentSource

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.stored: dict[str, Tensor] = {}
        architecture, kind = ARCHITECTURES[config.architecture], SOURCES[config.kind]
        options = parse_options(config.architecture, config.options)
        decoder = architecture.decoder(config.spec, options, kind.decoder_input)  # type: ignore[arg-type]
        # First: a checkpoint of an evaluation knows a generator by its tensors in this order.
        self.source = kind(config, decoder.latent_shape)
        self.decoder = channels_last(decoder)
        if config.soft_labels and not kind.finite:
            self.teacher = channels_last(ConvNet(config.spec))

    def __getstate__(self) -> dict[str, Any]:
        return share_as_one_buffer(self, self.__dict__, self.stored.values()) if is_spawning() else self.__dict__

    @property
    def spec(self) -> ImageSpec:
        """The images it makes."""
        return self.config.spec

    @property
    def bank(self) -> StoredCodes:
        """Its source, where that is a bank of stored codes.

        Raises:
            ValueError: The generator is driven by noise and stores nothing.
        """
        if not isinstance(self.source, StoredCodes):
            raise ValueError("only a generator with stored codes has a bank of them; this one draws noise")
        return self.source

    # Latents -----------------------------------------------------------------------------------------

    @torch_defaults(painting=True)
    def latents(self, labels: Tensor, serials: Tensor, seed: int = 0) -> Tensor:
        """The latents of the ``serials``-th images of classes ``labels`` under ``seed``.

        A pure function of its arguments. With stored codes, ``counts[label]`` successive serials visit every
        code of a class once, in an order that is new in each round.

        Args:
            labels: int64 (B,), class of each image.
            serials: int64 (B,), non-negative; which image of that class.
            seed: Any int.

        Returns:
            float32 (B, *latent_shape).
        """
        return self.source.latents(_whole(labels, "labels"), _whole(serials, "serials"), seed)

    @torch_defaults(painting=True)
    def rows(self, labels: Tensor, serials: Tensor, seed: int = 0) -> Tensor:
        """Places in the bank of codes, which is sorted by class: int64 (B,), on the generator's device.

        Worked out where ``labels`` are. For many at once that is best the CPU: a GPU would have to be waited for.

        Args:
            labels: int64 (B,), each in [0, num_classes).
            serials: int64 (B,), non-negative; see :meth:`latents`.
            seed: Any int.

        Raises:
            ValueError: The generator is driven by noise and stores nothing.
        """
        return self.bank.rows(_whole(labels, "labels"), _whole(serials, "serials"), seed)

    @torch_defaults(painting=True)
    def soft_labels(self, labels: Tensor, serials: Tensor, seed: int = 0, pictures: Tensor | None = None) -> Tensor:
        """What the teacher says of the pictures that :meth:`synthesize` paints for these arguments.

        With noise the teacher looks at each picture, and at its mirror image where ``spec.mirror`` allows: the
        mean of both. Like the pictures, its answers are bit-equal on one device however they are batched.

        Args:
            labels: int64 (B,), each in [0, num_classes).
            serials: int64 (B,), non-negative; see :meth:`latents`.
            seed: Any int.
            pictures: uint8 (B, C, H, W): those pictures, where they are at hand; else a teacher has them painted.

        Returns:
            float32 (B, num_classes): probabilities, each row summing to 1; those stored are bytes
            over the sum of their row.

        Raises:
            IndexError: A label is outside [0, num_classes).
            TypeError: Labels or serials are no whole numbers.
            ValueError: The generator stores no soft labels.
        """
        if not self.config.soft_labels:
            raise ValueError("this generator stores no soft labels")
        labels, serials = self._checked(labels), _whole(serials, "serials")
        if self.source.finite:
            return self.bank.opinions(self.rows(labels, serials, seed))
        pictures = self.synthesize(labels, serials, seed) if pictures is None else pictures
        teacher = in_float32(self.teacher)
        return self._in_chunks(lambda batch: opinion([teacher], batch, self.spec), pictures)

    # Images ------------------------------------------------------------------------------------------

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Decode latents (B, *latent_shape) and labels (B,) to images (B, C, H, W), near [0, 1]; trainable."""
        return _shown(self.decoder(latents, labels))

    def sample(self, labels: Tensor, rng: torch.Generator | None = None) -> Tensor:
        """Images of classes ``labels`` (B,) from latents that ``rng`` chooses, float (B, C, H, W); trainable."""
        drawn_on = "cpu" if rng is None else rng.device
        serials = torch.randint(1 << 40, labels.shape, generator=rng, device=drawn_on).to(labels.device)
        return self(self.latents(labels, serials, seed=0), labels)

    @torch_defaults(painting=True)
    def synthesize(self, labels: Tensor, serials: Tensor, seed: int = 0) -> Tensor:
        """The ``serials``-th images of classes ``labels`` under ``seed``, as uint8.

        Bit-equal on one device for equal arguments, however they are batched: the network always runs on
        :data:`CHUNK` images at once, the last chunk filled up. Runs in :func:`dim_data.networks.fast_dtype`.

        Args:
            labels: int64 (B,) on any device, each in [0, num_classes).
            serials: int64 (B,), non-negative; see :meth:`latents`.
            seed: Any int.

        Returns:
            uint8 (B, C, H, W) on the generator's device, un-normalised.

        Raises:
            IndexError: A label is outside [0, num_classes).
            TypeError: Labels or serials are no whole numbers.
        """
        labels = self.check_labels(labels)
        return self.paint(self.latents(labels, serials.to(labels.device), seed), labels)

    def check_labels(self, labels: Tensor) -> Tensor:
        """``labels`` as int64 on the generator's device; ``IndexError`` if one is outside [0, num_classes)."""
        return self._checked(labels).to(next(self.decoder.parameters()).device)

    def _checked(self, labels: Tensor) -> Tensor:
        labels = _whole(labels, "labels")
        if len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < self.spec.num_classes):
            found = f"{int(labels.min())} to {int(labels.max())}"
            raise IndexError(f"labels must lie in [0, {self.spec.num_classes}), got {found}")
        return labels

    def paint(self, latents: Tensor, labels: Tensor) -> Tensor:
        """The pictures of latents (B, *latent_shape) of classes ``labels`` (B,): uint8 (B, C, H, W)."""
        decoder = in_float32(self.decoder)
        if decoder is not self.decoder:
            decoder.eval()

        def paint(latents: Tensor, labels: Tensor) -> Tensor:
            if latents.ndim == 4:
                latents = latents.contiguous(memory_format=torch.channels_last)
            return (_shown(decoder(latents, labels)).float().clamp(0, 1) * 255).round().to(torch.uint8)

        return self._in_chunks(paint, latents, labels)

    @torch_defaults(painting=True)
    def _in_chunks(self, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """``function`` of ``inputs`` (B, ...), always :data:`CHUNK` rows at once, zeros at the end, in eval mode.

        On a CPU a single thread computes each chunk, and as many chunks are under way as torch has threads.
        """
        device, count = inputs[0].device, len(inputs[0])
        chunk = CHUNK.get(device.type, 128)
        inputs = tuple(torch.cat([x, x.new_zeros(-count % chunk or chunk * (not count), *x.shape[1:])]) for x in inputs)
        parts = list(zip(*(x.split(chunk) for x in inputs), strict=True))

        @torch_defaults(painting=True)
        def work(part: tuple[Tensor, ...]) -> Tensor:
            with autocast(device):
                return function(*part)

        learning = [module for module in self.modules() if module.training]
        self.eval()
        try:
            return torch.cat(side_by_side(work, parts, device))[:count]
        finally:
            for module in learning:
                module.training = True

    @torch_defaults(painting=True)
    def decode(self, rows: Tensor, batch_size: int = 1024) -> Tensor:
        """The pictures of stored codes, uint8 (B, C, H, W), on the generator's device.

        Args:
            rows: int64 (B,), places in the bank of codes, which is sorted by class.
            batch_size: Codes unpacked at once.

        Raises:
            ValueError: The generator is driven by noise and stores nothing.
        """
        bank = self.bank
        rows = rows.to(bank.codes.device)
        parts = rows.split(batch_size)
        return torch.cat([self.paint(bank.unpack(bank.codes[part]), bank.labels_of(part)) for part in parts])


def _whole(values: Tensor, what: str) -> Tensor:
    """As int64, which hashes of them are made of: narrower ones would give other pictures."""
    if values.dtype == torch.bool or values.is_floating_point() or values.is_complex():
        raise TypeError(f"{what} must be whole numbers, as int64, got {values.dtype}")
    return values.long()


def _shown(pixels: Tensor) -> Tensor:
    """What a decoder gives, near [-1, 1], as images near [0, 1]."""
    return pixels / 2 + 0.5
