"""Labelled images, in memory or mapped from a file, and what is measured of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from dim_data.images.classes import match_classes, say_assumed
from dim_data.images.defaults import torch_defaults
from dim_data.images.framing import Frame
from dim_data.images.levels import count_levels, level_statistics
from dim_data.images.rows import ImageRows
from dim_data.images.specs import CUT_FROM_PHOTOS, ImageSpec

__all__ = ["LabelledImages", "digest", "in_channels", "measure_spec"]

RUN = 100
"""Images that are held out together where several come from one photo."""


@dataclass(frozen=True)
class LabelledImages:
    """Images with what is known about them.

    Attributes:
        images: uint8 (N, C, H, W), un-normalised: a tensor, or where they are too many for memory an
            :class:`~dim_data.images.ImageRows`, which gives tensors of those that an index names.
        labels: int64 (N,), each in [0, spec.num_classes): this alone is not looked at before they are used.
        spec: Their shape, class names and statistics.
        soft: A teacher's probabilities for each image, float (N, num_classes), or ``None``.

    Raises:
        TypeError: Images, labels or soft labels are of another type.
        ValueError: They are of another shape.
    """

    images: Tensor | ImageRows
    labels: Tensor
    spec: ImageSpec
    soft: Tensor | None = None

    def __post_init__(self) -> None:
        spec, soft = self.spec, self.soft
        if not isinstance(self.images, Tensor | ImageRows) or self.images.dtype != torch.uint8:
            raise TypeError(
                f"LabelledImages holds images of uint8, 0 to 255, got {_kind(self.images)}: load_real((images, labels))"
                f" converts others"
            )
        if not isinstance(self.labels, Tensor) or self.labels.dtype != torch.int64:
            raise TypeError(f"LabelledImages holds labels of int64, got {_kind(self.labels)}")
        if soft is not None and not (isinstance(soft, Tensor) and soft.is_floating_point()):
            raise TypeError(f"LabelledImages holds soft labels of floats, got {_kind(soft)}")
        shape = tuple(self.images.shape)
        if len(shape) != 4 or shape[1:] != (spec.channels, spec.size, spec.size):
            raise ValueError(
                f"{spec.name} images are (N, {spec.channels}, {spec.size}, {spec.size}), got shape {shape}"
            )
        if tuple(self.labels.shape) != shape[:1]:
            raise ValueError(f"{shape[0]} images need as many labels, got labels of shape {tuple(self.labels.shape)}")
        if soft is not None and tuple(soft.shape) != (shape[0], spec.num_classes):
            raise ValueError(f"soft labels must be {(shape[0], spec.num_classes)}, got shape {tuple(soft.shape)}")

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Tensor) -> LabelledImages:
        """The images at ``indices``, int64 (M,); none that is mapped is read."""
        soft = None if self.soft is None else self.soft[indices]
        images = self.images.at(indices) if isinstance(self.images, ImageRows) else self.images[indices]
        return LabelledImages(images, self.labels[indices], self.spec, soft)

    def to(self, device: torch.device) -> LabelledImages:
        """The same images on ``device``; those that are mapped stay where they are."""
        soft = None if self.soft is None else self.soft.to(device)
        return LabelledImages(self.images.to(device), self.labels.to(device), self.spec, soft)

    def members(self, order: Tensor) -> tuple[Tensor, ...]:
        """The images at ``order``, int64 (M,) on the CPU, by classes: a tensor of indices for each, in that order."""
        labels = self.labels.cpu()[order]
        counts = torch.bincount(labels, minlength=self.spec.num_classes)
        return order[labels.argsort(stable=True)].split(counts.tolist())

    @torch_defaults(painting=True)
    def split(self, fraction: float, seed: int = 0) -> tuple[LabelledImages, LabelledImages]:
        """Split off a random ``fraction`` of every class (at least one image, never all): (rest, held out).

        Where images are cut from photos (:data:`~dim_data.images.CUT_FROM_PHOTOS`), runs of :data:`RUN` images are held
        out, whatever their classes, and no photo is on both sides: a few images at the ends of a run are in neither
        part. A set that is too small for that is split as any other.
        """
        rng = torch.Generator().manual_seed(seed)
        if self.spec.name in CUT_FROM_PHOTOS:
            rest, chosen = _held_runs(len(self), fraction, CUT_FROM_PHOTOS[self.spec.name] - 1, rng)
            labels = self.labels.cpu()
            if all(len(labels[part].unique()) == len(labels.unique()) for part in (rest, chosen)):
                return self.subset(rest), self.subset(chosen)
        held: list[Tensor] = []
        for members in self.members(torch.randperm(len(self), generator=rng)):
            if len(members) > 1:
                held.append(members[: min(len(members) - 1, max(1, round(fraction * len(members))))])
        chosen = torch.cat([*held, torch.empty(0, dtype=torch.int64)])
        mask = torch.ones(len(self), dtype=torch.bool)
        mask[chosen] = False
        return self.subset(mask.nonzero()[:, 0]), self.subset(chosen.sort().values)

    def in_terms_of(self, spec: ImageSpec) -> LabelledImages:
        """The same images under another spec: labels, and soft ones, by the names of its classes.

        Raises:
            ValueError: They are of another size, in colour where it is grey, or of a class that it lacks, be it in soft
                labels alone; or a label is of no class of their own.
        """
        if len(self) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < self.spec.num_classes:
            raise ValueError(
                f"labels must lie in [0, {self.spec.num_classes}), got {self.labels.min()} to {self.labels.max()}"
            )
        if spec == self.spec:
            return self
        Frame(None, (spec.size,), spec.name).check(self.spec.size, self.spec.size, self.spec.name)
        soft = self.soft
        told = self.labels if soft is None else torch.cat([self.labels, soft.any(0).nonzero()[:, 0].to(self.labels)])
        present = told.unique().tolist()
        matched = match_classes(self.spec.classes, present, spec)
        say_assumed(self.spec.classes, present, matched, spec)
        places = torch.tensor(matched, device=self.labels.device)
        if soft is not None:
            kept = torch.zeros(self.spec.num_classes, spec.num_classes, dtype=soft.dtype, device=soft.device)
            kept[present, places[present]] = 1
            soft = soft @ kept
        return LabelledImages(in_channels(self.images, spec), places[self.labels], spec, soft)

    def fingerprint(self) -> str:
        """A short digest of images, labels and soft labels: whether a resumed run sees the data it began with."""
        parts = self.images.split(1024) if isinstance(self.images, ImageRows) else [self.images]
        return digest(chain(parts, [self.labels], [] if self.soft is None else [self.soft]))


def _kind(value: object) -> str:
    """The numbers of a tensor, the type of anything else."""
    return str(value.dtype) if isinstance(value, Tensor) else type(value).__name__


def _held_runs(count: int, fraction: float, margin: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Indices of ``count`` images: of those outside random runs, and of those within, ``margin`` from either end."""
    runs = count // RUN
    wanted = min(runs - 1, max(1, round(fraction * count / (RUN - 2 * margin)))) if runs > 1 else 0
    starts = RUN * torch.randperm(runs, generator=rng)[:wanted].sort().values
    within = (starts[:, None] + torch.arange(RUN)).flatten()
    rest = torch.ones(count, dtype=torch.bool)
    rest[within] = False
    held = (starts[:, None] + torch.arange(margin, RUN - margin)).flatten()
    return rest.nonzero()[:, 0], held


def in_channels(images: Tensor | ImageRows, spec: ImageSpec) -> Tensor | ImageRows:
    """Grey images (N, 1, H, W) as RGB where the spec is RGB; images without colour as grey where it is grey.

    Raises:
        ValueError: They are in colour and the spec is grey.
    """
    channels = images.shape[1]
    if channels == spec.channels:
        return images
    if channels == 3 and not all(_is_grey(part) for part in images.split(1024)):
        raise ValueError(f"{spec.name} images are grey, and these are in colour: convert them first")
    if isinstance(images, ImageRows):
        return images.in_channels(spec.channels)
    return images.expand(-1, 3, -1, -1).contiguous() if channels == 1 else images[:, :1].contiguous()


def _is_grey(images: Tensor) -> bool:
    return all(torch.equal(images[:, 0], images[:, other]) for other in (1, 2))


def measure_spec(
    images: Tensor | ImageRows,
    name: str,
    classes: Sequence[str],
    known: ImageSpec | None,
    present: Sequence[int],
    levels: Tensor | None = None,
) -> ImageSpec:
    """The facts about images that nobody told.

    Args:
        images: uint8 (N, C, S, S).
        name: What the set is called.
        classes: Its class names, in label order.
        known: The facts about a known set of that name: taken where they fit, and for a known set at another size its
            classes and its mirroring.
        present: The labels that occur.
        levels: int64 (C, 256), what :func:`~dim_data.images.levels.count_levels` says of them, if it was asked.
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
    mean, std = level_statistics(count_levels(images) if levels is None else levels)
    mirror = known is not None and known.mirror
    return ImageSpec(name[:200] or "images", channels, size, tuple(classes), mean, std, mirror)


def digest(tensors: Iterable[Tensor]) -> str:
    """A short digest of tensors' bytes, one after the other."""
    sha = hashlib.sha256()
    for tensor in tensors:
        sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()[:16]
