"""A distilled image set as a map-style dataset, in place of torchvision's."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from dim_data.generator import Generator, blended
from dim_data.images import ImageSpec, torch_defaults
from dim_data.loading.cache import PictureCache
from dim_data.loading.passes import Passes, check_int, check_state
from dim_data.networks import resolve_device

__all__ = ["DistilledDataset", "check_soft_labels", "open_source"]


def check_soft_labels(generator: Generator, wanted: float) -> float:
    """``wanted`` as a share; ``ValueError`` if it is none, or the generator stores no soft labels to hand out."""
    if not isinstance(wanted, int | float) or not 0 <= wanted <= 1:
        raise ValueError(f"soft_labels must be True, False or a share in [0, 1], got {wanted!r}")
    if wanted and not generator.config.soft_labels:
        raise ValueError(
            f"soft_labels={wanted}, but this generator stores none: leave it out, or make one that does by "
            "dim-data distill --set labels.soft=true, or dim-data shrink --noise --soft-labels"
        )
    return float(wanted)


@torch_defaults()
def open_source(
    source: Generator | str | Path, revision: str | None, device: torch.device, token: str | bool | None
) -> Generator:
    """``source`` as a generator on ``device``: an object as it is (copied if it lies elsewhere), or loaded.

    Raises:
        FileNotFoundError: No such source; see :meth:`Generator.from_pretrained`.
        ValueError: ``revision`` is given with a generator that is already loaded.
    """
    if not isinstance(source, Generator):
        return Generator.from_pretrained(source, revision=revision, device=device, token=token)
    if revision is not None:
        raise ValueError(
            f"revision={revision!r} selects a commit of a Hub repository, but source is a Generator already: "
            f"use Generator.from_pretrained('user/repo', revision={revision!r})"
        )
    at = next(source.parameters()).device
    if at.type == device.type and device.index in (None, at.index):
        return source
    return copy.deepcopy(source).to(device)


class DistilledDataset(Dataset[tuple[Any, Any]]):
    """A labelled image set that a generator paints, new in every epoch.

    Picture ``index`` is of class ``index % num_classes``. What it shows is a pure function of (weights, seed,
    epoch, index), bit-equal on one kind of device however the indices are batched or shared out to workers.

    Every pass is a new epoch, with nobody calling anything, in stock ``DataLoader`` with any workers: drawing
    an index again moves on to the next epoch. So ``dataset[0]`` twice gives two pictures, unless the epoch is
    pinned by :meth:`set_epoch` or ``fixed``. Pin it where a run must be repeatable although passes are
    cut short, indices are drawn with replacement in several workers (which may, by a hair, even draw one
    picture twice), or ranks share out small batches: there the moment of moving on depends on timing, or
    comes some batches into a pass.

    Items come from one forward pass a batch, through ``__getitems__``; ``ConcatDataset`` asks for them one by
    one, which is many times slower.

    Args:
        source: A :class:`Generator`, a folder, a bundled name such as ``"cifar10"`` or a Hub id.
        ipc: Images of each class in an epoch.
        transform: Maps each PIL image (RGB, or L for grey) to what the item holds; may be assigned later.
        target_transform: Maps each int label; may be assigned later.
        seed: Any int, taken modulo 2**64; other seeds, other pictures.
        train: Present for compatibility with torchvision; only ``True`` makes sense.
        revision: Branch, tag or commit, where ``source`` is a Hub id.
        fixed: Stay in epoch 0 for ever: ``ipc * num_classes`` pictures in all.
        device: Where pictures are made; ``None`` means the CPU. A GPU serves the main process only.
        token: Hub access token, for private repositories.
        cache: Keep each decoded picture of a generator with stored codes in memory that all workers share, so that
            none is decoded twice: the same pictures, faster; see :class:`~dim_data.loading.PictureCache`.

        soft_labels: Hand out, in place of each class, the probabilities that a teacher gives the picture, where the
            generator stores those or the teacher: a float32 tensor (num_classes,). ``cross_entropy`` takes a batch of
            them as it takes classes. A share such as 0.5 hands out that much of them, the rest being the class.

    Attributes:
        generator: The :class:`Generator`, on ``device``.
        ipc: Images of each class.
        seed: The seed.
        fixed: Whether the epoch is frozen.

    Raises:
        FileNotFoundError: No such source.
        MemoryError: ``cache``, and the system has too little shared memory for it.
        TypeError: ``ipc`` or ``seed`` is not an int.
        ValueError: ``ipc`` is below 1, ``train=False``: synthetic images are no test set, ``cache`` with a
            generator driven by noise, or ``soft_labels`` with one that stores none or past [0, 1].
    """

    def __init__(
        self,
        source: Generator | str | Path,
        *,
        ipc: int = 50,
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
        seed: int = 0,
        train: bool = True,
        revision: str | None = None,
        fixed: bool = False,
        device: str | torch.device | None = None,
        token: str | bool | None = None,
        cache: bool = False,
        soft_labels: bool | float = False,
    ) -> None:
        if not train:
            raise ValueError(
                "train=False asks for a test set, and synthetic images are never one: "
                "test on the real images, for example torchvision.datasets.CIFAR10(root, train=False)"
            )
        self.ipc = check_int("ipc", ipc, 1)
        self.seed, self.fixed = check_int("seed", seed), fixed
        self.device = resolve_device("cpu" if device is None else device)
        self.generator = open_source(source, revision, self.device, token)
        on_cpu = self.device.type == "cpu"
        self._painter = PictureCache(self.generator, shared=on_cpu) if cache else self.generator
        self.soft_labels = check_soft_labels(self.generator, soft_labels)
        self.transform, self.target_transform = transform, target_transform
        self.source = self.spec.name if isinstance(source, Generator) else str(source)
        self._passes = Passes(len(self))

    @property
    def spec(self) -> ImageSpec:
        """Shape, class names and normalisation of the images."""
        return self.generator.spec

    @property
    def classes(self) -> list[str]:
        """Class names, in label order."""
        return list(self.spec.classes)

    @property
    def class_to_idx(self) -> dict[str, int]:
        """Label of each class name."""
        return {name: label for label, name in enumerate(self.spec.classes)}

    @cached_property
    def targets(self) -> list[int]:
        """Label of each index, before ``target_transform``."""
        return list(range(self.spec.num_classes)) * self.ipc

    @property
    @torch_defaults(painting=True)
    def data(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """All pictures of the current :attr:`epoch`: uint8 (N, H, W, 3), or (N, H, W) if grey. Not a draw."""
        indices = torch.arange(len(self))
        return _as_arrays(self._pictures(indices, torch.full_like(indices, self.epoch)))

    # Epochs ------------------------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        """The epoch of the latest pictures; 0 before any were drawn."""
        return 0 if self.fixed else self._passes.epoch

    def set_epoch(self, epoch: int | None) -> None:
        """Draw from ``epoch`` and no other until the next call; ``None`` goes back to a new epoch each pass.

        Takes effect in running workers too, so call it between passes. Where ``fixed``, epoch 0 stays: that is
        no error, for Accelerate calls this by itself.

        Raises:
            TypeError: ``epoch`` is not an int.
            ValueError: ``epoch`` is negative.
        """
        self._passes.pin(epoch)

    # Items -------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self.ipc * self.spec.num_classes

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Picture and label of ``index``, transformed; negative indices count from the end."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Iterable[int]) -> list[tuple[Any, Any]]:
        """The items of a batch of indices, made in one forward pass.

        Raises:
            IndexError: An index is past either end.
            RuntimeError: The pictures are made on a GPU, and this is a worker process.
        """
        if self.device.type == "cuda" and get_worker_info() is not None:
            raise RuntimeError(
                "this dataset makes pictures on 'cuda', and DataLoader's workers cannot: use num_workers=0 "
                "(or DistilledLoader, which makes whole batches on the GPU), or build it with device='cpu'"
            )
        chosen = [self._index(index) for index in indices]
        places = torch.tensor(chosen, dtype=torch.int64, device="cpu")
        epochs = torch.zeros_like(places) if self.fixed else self._passes.advance(places)
        pictures, items = self._pictures(places, epochs), []
        for array, target in zip(_as_arrays(pictures), self._targets(places, epochs, pictures), strict=True):
            image: Any = Image.fromarray(array)
            label: Any = target
            if self.transform is not None:
                image = self.transform(image)
            if self.target_transform is not None:
                label = self.target_transform(label)
            items.append((image, label))
        return items

    def _index(self, index: Any) -> int:
        place = operator.index(index)
        if not -len(self) <= place < len(self):
            raise IndexError(f"index {place} is out of range: this dataset has {len(self)} pictures")
        return place % len(self)

    def _serials(self, indices: Tensor, epochs: Tensor) -> Tensor:
        return epochs * self.ipc + torch.div(indices, self.spec.num_classes, rounding_mode="floor")

    @torch_defaults(painting=True)
    def _targets(self, indices: Tensor, epochs: Tensor, pictures: Tensor) -> Iterable[Any]:
        """What ``pictures``, those of ``indices`` (B,) in ``epochs`` (B,), are labelled: ints, or soft labels."""
        labels = indices % self.spec.num_classes
        if not self.soft_labels:
            return labels.tolist()
        soft = self.generator.soft_labels(labels, self._serials(indices, epochs), self.seed, pictures)
        return blended(soft, labels, self.soft_labels).cpu()

    @torch_defaults(painting=True)
    def _pictures(self, indices: Tensor, epochs: Tensor) -> Tensor:
        """Pictures of ``indices`` (B,) in ``epochs`` (B,): uint8 (B, C, H, W)."""
        return self._painter.synthesize(indices % self.spec.num_classes, self._serials(indices, epochs), self.seed)

    # Resuming ----------------------------------------------------------------------------------------

    @property
    def _settings(self) -> dict[str, Any]:
        return {"ipc": self.ipc, "seed": self.seed, "num_classes": self.spec.num_classes}

    def state_dict(self) -> dict[str, Any]:
        """Where the draws stand: JSON-ready, one bit for each index.

        torchdata's ``StatefulDataLoader`` asks each worker and joins the answers: an interrupted pass goes
        on, and the next begins, exactly as if unbroken. It sees only the dataset it was given, so around a
        ``Subset`` or another wrapper pin the epoch instead. Called in the main process, this includes what
        workers have drawn ahead.
        """
        return {"settings": self._settings, **self._passes.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go to where :meth:`state_dict` was taken.

        Raises:
            ValueError: The state was saved with another ``ipc``, ``seed`` or number of classes.
        """
        check_state(state_dict, self._settings, {"epoch", "pinned", "drawn"})
        self._passes.load_state_dict(state_dict)

    def __repr__(self) -> str:
        commit = f" at {self.generator.revision}" if self.generator.revision else ""
        pinned = self._passes.pinned is not None
        epoch = "fixed" if self.fixed else "pinned" if pinned else "new in each pass"
        lines = [
            f"Dataset {type(self).__name__}",
            f"    Number of datapoints: {len(self)}",
            f"    Source: {self.source}{commit}",
            f"    Images per class: {self.ipc} of {self.spec.num_classes} classes",
            f"    Epoch: {self.epoch} ({epoch})",
        ]
        for head, transform in (("Transform", self.transform), ("Target transform", self.target_transform)):
            if transform is not None:
                lines.append(f"    {head}: " + repr(transform).replace("\n", "\n    "))
        return "\n".join(lines)


def _as_arrays(pictures: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """uint8 (B, C, H, W) to (B, H, W, 3), or (B, H, W) if grey."""
    array = pictures.cpu().permute(0, 2, 3, 1).contiguous().numpy()
    return array[..., 0] if pictures.shape[1] == 1 else array
