"""The items of a painted set, asked for one by one or in batches, by whomever."""

from __future__ import annotations

import copy
import math
import operator
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Subset, get_worker_info

from dim_data.generator import CHUNK, Generator, blended
from dim_data.images import ImageSpec, torch_defaults
from dim_data.loading.askers import torch_asker
from dim_data.loading.blocks import BlockCache
from dim_data.loading.choosing import CacheChoice, painter_for
from dim_data.loading.columns import Columns
from dim_data.loading.keeping import CachingPainter
from dim_data.loading.misuse import Misuse
from dim_data.loading.passes import Passes, check_int
from dim_data.loading.serials import serials_at
from dim_data.networks import is_spawning

__all__ = ["Items"]

S = TypeVar("S", bound="Items")


class Items(Columns):
    """What :class:`~dim_data.loading.DistilledDataset` hands out, and when; that class says what of."""

    generator: Generator
    ipc: int
    seed: int
    soft_labels: float
    fixed: bool
    refresh: float
    _device: torch.device
    transform: Callable[[Any], Any] | None
    target_transform: Callable[[Any], Any] | None

    def _begin(self, cache: CacheChoice) -> None:
        """Stand before the first draw."""
        again, opinions, shared = self.fixed or self.refresh < 1, bool(self.soft_labels), self._device.type == "cpu"
        self._painter = painter_for(self.generator, cache, ipc=self.ipc, again=again, opinions=opinions, shared=shared)
        self._cache = cache
        self._passes, self._misuse = Passes(self._count), Misuse(self.generator, self.ipc)
        self._make_blocks()

    def __setattr__(self, name: str, value: Any) -> None:
        # What pictures, their memory and their number were planned by.
        if name in ("generator", "ipc", "soft_labels", "refresh") and "_passes" in self.__dict__:
            raise ValueError(
                f"{name} is not to be changed in a dataset: make another, as in {type(self).__name__}(..., {name}=)"
            )
        if name == "epoch":
            raise AttributeError("epoch says where the draws stand: set_epoch() chooses one, set_epoch(None) lets go")
        super().__setattr__(name, check_int(name, value) if name == "seed" else value)

    def __copy__(self: S) -> S:
        """One with the same pictures and labels, whose draws go their own way from here."""
        other: S = type(self).__new__(type(self))
        _ = self.targets  # edits in place are of both, whoever looked at them first
        self._keep_edits()
        other.__dict__.update(
            self.__dict__, _lent=None, _passes=copy.deepcopy(self._passes), _misuse=copy.copy(self._misuse)
        )
        return other

    def _make_blocks(self) -> None:
        self._shape = (self.spec.size, self.spec.size, 3)[: 2 if self.spec.channels == 1 else 3]
        self._pixels = math.prod(self._shape)
        opinion = 4 * self.spec.num_classes if self.soft_labels else 0
        # Looking up known pictures takes as long for many as for one.
        size = CHUNK.get(self._device.type, 128) * (8 if isinstance(self._painter, CachingPainter) else 1)
        self._blocks = BlockCache(self.ipc * self.spec.num_classes, size, self._pixels + opinion)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if not (is_spawning() and self._blocks.share_memory()):
            del state["_blocks"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if "_blocks" not in state:
            self._make_blocks()

    @property
    def spec(self) -> ImageSpec:
        """Shape, class names and normalisation of the images."""
        return self.generator.spec

    @property
    def epoch(self) -> int:
        """The epoch of the latest pictures; 0 before any were drawn."""
        return 0 if self.fixed else self._passes.epoch

    def set_epoch(self, epoch: int | None) -> None:
        """Draw from ``epoch`` and no other until the next call; ``None`` goes back to a new epoch each pass.

        Takes effect in running workers too, so call it between passes. Where ``fixed``, or ``data`` was assigned, the
        pictures stay: that is no error, for Accelerate calls this by itself. It announces how many passes came to
        their end: after a ``break``, call ``set_epoch(n)`` of its loader, or the next pass is in the same epoch again.

        Raises:
            TypeError: ``epoch`` is not an int.
            ValueError: ``epoch`` is negative.
        """
        self._passes.pin(epoch)

    def __len__(self) -> int:
        return self._count

    @property
    def _count(self) -> int:
        return self.ipc * self.spec.num_classes if self._data is None else len(self._data)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Picture and label of ``index``, transformed; negative indices count from the end. Raises as :meth:`read`."""
        place = self._index(index)
        (epoch,) = self._draw([place])
        if not self._stands_still() and self._data is None:
            self._misuse.look_at_pairs(place)
        if epoch == self._misuse.reuse:
            self._misuse.look_at_parts(self._passes, torch_asker(self, sys._getframe(1)))
        if self._is_held([epoch]):
            return self._item(self._picture(place), self._target(place))
        row = self._blocks.row(self._key(epoch), place, lambda places: self._rows(places, epoch))
        opinion = _opinion(row[self._pixels :]) if self.soft_labels else None
        return self._item(row[: self._pixels].reshape(self._shape), self._label(place, opinion))

    def read(self, indices: Iterable[int]) -> list[tuple[Any, Any]]:
        """The items of a batch of indices, made in one forward pass: ``[dataset[i] for i in indices]``, at once.

        Raises:
            IndexError: An index is past either end.
            RuntimeError: The pictures are made on a GPU, and this is a worker process.
            ValueError: ``data`` and ``targets`` differ in length, or one was changed and the labels are soft.
        """
        chosen = [self._index(index) for index in indices]
        epochs = self._draw(chosen)
        if self._misuse.reuse in epochs[:1]:
            self._misuse.look_at_parts(self._passes, None)
        if self._is_held(epochs):
            return [self._item(self._picture(place), self._target(place)) for place in chosen]
        places, when = torch.tensor([chosen, epochs], dtype=torch.int64, device="cpu")
        pictures = self._pictures(places, when)
        opinions = self._opinions(places, when, pictures) if self.soft_labels else [None] * len(chosen)
        parts = zip(_as_arrays(pictures), chosen, opinions, strict=True)
        return [self._item(picture, self._label(place, opinion)) for picture, place, opinion in parts]

    @property
    def __getitems__(self) -> Callable[[Iterable[int]], list[tuple[Any, Any]]]:
        """:meth:`read`, where that passes over nobody who defines ``__getitem__``.

        ``DataLoader`` and ``Subset`` look for this before they ask for items one by one, and so does, by accident,
        a wrapper that forwards attributes: it is not there for others than those two.
        """
        kind, asker = type(self), torch_asker(self, sys._getframe(1))
        if kind.__getitems__ is not _GETITEMS:
            return self.read  # by super() of an override
        if kind.__getitem__ is not _GETITEM or asker is None:
            raise AttributeError(f"{kind.__name__} is asked item by item here; read(indices) makes a batch of them")
        return partial(self._read_part, asker) if isinstance(asker, Subset) else self.read

    def _read_part(self, part: Subset[Any], indices: Iterable[int]) -> list[tuple[Any, Any]]:
        reuse, self._misuse.reuse = self._misuse.reuse, -1  # it is asked of the part, not of all that was drawn
        items, self._misuse.reuse = self.read(indices), reuse
        if reuse >= 0 and not self.fixed and self._data is None and self._passes.epoch == reuse:
            self._misuse.look_at_parts(self._passes, part)
        return items

    def _index(self, index: Any) -> int:
        place = operator.index(index)
        if not -self._count <= place < self._count:
            raise IndexError(f"index {place} is out of range: this dataset has {self._count} pictures")
        return place % self._count

    def _draw(self, places: list[int]) -> list[int]:
        """Note that ``places`` are drawn; the epoch of each."""
        self._looks = 0
        if self._data is not None or self.fixed:
            return [0] * len(places)
        return self._passes.advance(places)

    def _stands_still(self) -> bool:
        return self.fixed or self._passes.pinned is not None

    def _is_held(self, epochs: Sequence[int]) -> bool:
        """Whether items of these epochs are read from memory, and not painted."""
        held = all(self._holds(self._key(epoch)) for epoch in dict.fromkeys(epochs))
        if self.soft_labels:
            self._look_after()
        if self.soft_labels and self._data is not None:
            raise ValueError(
                "data was changed, and soft_labels are what a teacher said of the pictures as they were painted: "
                "build the dataset without soft_labels"
            )
        return held and not self.soft_labels

    def _item(self, picture: NDArray[np.uint8], label: Any) -> tuple[Any, Any]:
        image: Any = Image.fromarray(picture)
        if self.transform is not None:
            image = self.transform(image)
        if self.target_transform is not None:
            label = self.target_transform(label)
        return image, label

    def _label(self, place: int, opinion: Tensor | None) -> Any:
        target = self._target(place)
        if opinion is None:
            return target
        if not np.array_equal(target, place % self.spec.num_classes):
            raise ValueError(
                f"targets[{place}] was changed to {target!r}, and soft_labels are what a teacher said of the picture, "
                "whatever its label: build the dataset without soft_labels"
            )
        return opinion

    # Painting ----------------------------------------------------------------------------------------

    def _key(self, epoch: int) -> tuple[Any, ...]:
        return epoch, self.seed, self.ipc, self.refresh, self.soft_labels

    def _epoch_key(self) -> tuple[Any, ...]:
        return self._key(self.epoch)

    @torch_defaults(painting=True)
    def _painted(self) -> NDArray[np.uint8]:
        indices = torch.arange(self._count)
        return _as_arrays(self._pictures(indices, torch.full_like(indices, self.epoch)))

    def _rows(self, places: Tensor, epoch: int) -> NDArray[np.uint8]:
        """Rows of a block: each a picture and, if labels are soft, the opinion of it."""
        places = places.clamp(max=self.ipc * self.spec.num_classes - 1)  # past it lies what nobody asks for
        epochs = torch.full_like(places, epoch)
        pictures = self._pictures(places, epochs)
        rows = _as_arrays(pictures).reshape(len(places), -1)
        if not self.soft_labels:
            return rows
        said = self._opinions(places, epochs, pictures).contiguous().numpy().view(np.uint8)
        return np.concatenate([rows, said], axis=1)

    def _serials(self, indices: Tensor, epochs: Tensor) -> Tensor:
        return serials_at(indices, epochs, ipc=self.ipc, classes=self.spec.num_classes, refresh=self.refresh)

    @torch_defaults(painting=True)
    def _opinions(self, indices: Tensor, epochs: Tensor, pictures: Tensor) -> Tensor:
        """Soft labels of ``pictures``, those of ``indices`` (B,) in ``epochs`` (B,): float32 (B, num_classes)."""
        labels = indices % self.spec.num_classes
        soft = self._painter.soft_labels(labels, self._serials(indices, epochs), self.seed, pictures)
        return blended(soft, labels, self.soft_labels).cpu()

    @torch_defaults(painting=True)
    def _pictures(self, indices: Tensor, epochs: Tensor) -> Tensor:
        """Pictures of ``indices`` (B,) in ``epochs`` (B,): uint8 (B, C, H, W)."""
        if self._device.type == "cuda" and get_worker_info() is not None:
            raise RuntimeError(
                "this dataset makes pictures on 'cuda', and DataLoader's workers cannot: use num_workers=0 "
                "(or DistilledLoader, which makes whole batches on the GPU), or build it with device='cpu'"
            )
        return self._painter.synthesize(indices % self.spec.num_classes, self._serials(indices, epochs), self.seed)


_GETITEM, _GETITEMS = Items.__getitem__, Items.__getitems__


@torch_defaults(painting=True)
def _opinion(row: NDArray[np.uint8]) -> Tensor:
    """The soft label in these bytes."""
    return torch.from_numpy(row.copy().view(np.float32))


def _as_arrays(pictures: Tensor) -> NDArray[np.uint8]:
    """uint8 (B, C, H, W) to (B, H, W, 3), or (B, H, W) if grey."""
    array = pictures.cpu().permute(0, 2, 3, 1).contiguous().numpy()
    return array[..., 0] if pictures.shape[1] == 1 else array
