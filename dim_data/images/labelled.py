"""Labelled images in memory, and what is measured of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dim_data.images.classes import match_classes
from dim_data.images.defaults import torch_defaults
from dim_data.images.framing import Frame
from dim_data.images.specs import ImageSpec

__all__ = ["LabelledImages", "digest", "in_channels", "measure_spec"]


@dataclass(frozen=True)
class LabelledImages:
    """Images in memory with what is known about them.

    Attributes:
        images: uint8 (N, C, H, W), un-normalised.
        labels: int64 (N,), each in [0, spec.num_classes).
        spec: Their shape, class names and statistics.
        soft: A teacher's probabilities for each image, float (N, num_classes), or ``None``.
    """

    images: Tensor
    labels: Tensor
    spec: ImageSpec
    soft: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Tensor) -> LabelledImages:
        """The images at ``indices``, int64 (M,)."""
        soft = None if self.soft is None else self.soft[indices]
        return LabelledImages(self.images[indices], self.labels[indices], self.spec, soft)

    def to(self, device: torch.device) -> LabelledImages:
        """The same images on ``device``."""
        soft = None if self.soft is None else self.soft.to(device)
        return LabelledImages(self.images.to(device), self.labels.to(device), self.spec, soft)

    @torch_defaults(painting=True)
    def split(self, fraction: float, seed: int = 0) -> tuple[LabelledImages, LabelledImages]:
        """Split off a random ``fraction`` of every class (at least one image, never all): (rest, held out)."""
        rng = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self), generator=rng)
        held: list[Tensor] = []
        for label in range(self.spec.num_classes):
            members = order[self.labels[order] == label]
            if len(members) > 1:
                held.append(members[: min(len(members) - 1, max(1, round(fraction * len(members))))])
        chosen = torch.cat([*held, order[:0]])
        mask = torch.ones(len(self), dtype=torch.bool)
        mask[chosen] = False
        return self.subset(mask.nonzero()[:, 0]), self.subset(chosen.sort().values)

    def in_terms_of(self, spec: ImageSpec) -> LabelledImages:
        """The same images under another spec: labels, and soft ones, by the names of its classes.

        Raises:
            ValueError: They are of another size, in colour where it is grey, or of a class that it lacks.
        """
        if spec == self.spec:
            return self
        Frame(None, (spec.size,), spec.name).check(self.spec.size, self.spec.size, self.spec.name)
        present = self.labels.unique().tolist()
        places = torch.tensor(match_classes(self.spec.classes, present, spec), device=self.labels.device)
        soft = self.soft
        if soft is not None:
            kept = torch.zeros(self.spec.num_classes, spec.num_classes, dtype=soft.dtype, device=soft.device)
            kept[present, places[present]] = 1
            soft = soft @ kept
        return LabelledImages(in_channels(self.images, spec), places[self.labels], spec, soft)

    def fingerprint(self) -> str:
        """A short digest of images and labels: whether a resumed run sees the data it began with."""
        return digest((self.images, self.labels))


def in_channels(images: Tensor, spec: ImageSpec) -> Tensor:
    """Grey images (N, 1, H, W) as RGB where the spec is RGB; images without colour as grey where it is grey.

    Raises:
        ValueError: They are in colour and the spec is grey.
    """
    channels = images.shape[1]
    if channels == spec.channels:
        return images
    if channels == 1:
        return images.expand(-1, 3, -1, -1).contiguous()
    if not all(torch.equal(images[:, 0], images[:, other]) for other in (1, 2)):
        raise ValueError(f"{spec.name} images are grey, and these are in colour: convert them first")
    return images[:, :1].contiguous()


def measure_spec(
    images: Tensor, name: str, classes: Sequence[str], known: ImageSpec | None, present: Sequence[int]
) -> ImageSpec:
    """The facts about images that nobody told.

    Args:
        images: uint8 (N, C, S, S).
        name: What the set is called.
        classes: Its class names, in label order.
        known: The facts about a known set of that name: taken where they fit, and for a known set at another size its
            classes and its mirroring.
        present: The labels that occur.
    """
    channels, size = images.shape[1:3]
    if known is not None:
        try:
            match_classes(classes, present, known)
            name, classes = known.name, known.classes
        except ValueError:  # another set by that name
            known = None
    if known is not None and (known.channels, known.size) == (channels, size):
        return known
    levels = torch.arange(256, dtype=torch.float64) / 255
    mean, std = [], []
    for channel in range(channels):
        counts = torch.zeros(256, dtype=torch.float64)
        for part in images[:, channel].split(256):
            counts += torch.bincount(part.reshape(-1), minlength=256)
        total = counts.sum()
        centre = (counts * levels).sum() / total
        variance = (counts * (levels - centre).square()).sum() / (total - 1)
        mean.append(round(float(centre), 4))
        std.append(round(max(float(variance.sqrt()), 1e-3), 4))
    mirror = known is not None and known.mirror
    return ImageSpec(name[:200] or "images", channels, size, tuple(classes), tuple(mean), tuple(std), mirror)


def digest(tensors: Iterable[Tensor]) -> str:
    """A short digest of tensors' bytes, one after the other."""
    sha = hashlib.sha256()
    for tensor in tensors:
        sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()[:16]
