"""The pictures and labels of a whole set, which other people's code reads, edits and assigns."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset, get_worker_info

from dim_data.images import ImageSpec, warn_caller
from dim_data.loading.forms import Alias, Arrays

__all__ = ["Columns"]


class Columns(Dataset[tuple[Any, Any]], ABC):
    """A set with ``data`` and ``targets`` like torchvision's: what is assigned or edited is what is handed out.

    Until then the pictures are painted. ``data`` hands out those of the current epoch, and items of that epoch are
    read from there while it lasts. Where they turn out to be edited when it ends, and where ``data`` is assigned,
    they are the set's own from then on: a fixed set, as real data would be.
    """

    train_data, train_labels, labels = Alias("data"), Alias("targets"), Alias("targets")
    _form = Arrays()
    _data: Any = None  # as assigned or edited
    _targets: Any = None
    _lent: _Lent | None = None
    _looks = 0  # times that data was read since the last draw

    @property
    def data(self) -> Any:
        """All pictures, in the form of the set that is replaced: those assigned, else the current epoch's. Not a draw.

        uint8, an array (N, H, W, 3), or (N, H, W) if grey; for MNIST and FashionMNIST a tensor (N, H, W), for SVHN an
        array (N, 3, H, W). May be edited in place, before the epoch of these pictures ends, or assigned: the set then
        stays as it is, however often it is drawn.

        Raises:
            TypeError: What is assigned does not hold uint8 pictures.
            ValueError: It has another shape.
        """
        key = self._epoch_key()
        if not self._holds(key):
            self._lent = _Lent(key, self._form.hold(self._painted()))
        self._look()
        if self._lent is None:
            return self._data
        self._lent.looked_after = False
        return self._lent.data

    @data.setter
    def data(self, value: Any) -> None:
        held = (
            np.stack([np.asarray(picture) for picture in value]) if isinstance(value, list | tuple) and value else value
        )
        if getattr(np.asarray(held), "dtype", None) != np.uint8:
            raise TypeError(f"data must hold uint8 pictures, {self._form.shape}, got {_named(value)}")
        if not self._form.fits(held.shape):
            raise ValueError(f"data must be uint8 {self._form.shape}, got {_named(value)}")
        _ = self.targets  # those of the pictures that were painted
        self._data, self._lent = held, None

    @property
    def targets(self) -> Any:
        """The label of each index, before ``target_transform``, in the form of the set that is replaced.

        A list of ints; for MNIST and FashionMNIST a tensor, for SVHN an array, int64 (N,). May be edited in place or
        assigned: items are labelled by what it holds, their pictures stay.
        """
        if self._targets is None:
            self._targets = self._form.label([index % self.spec.num_classes for index in range(self._count)])
        return self._targets

    @targets.setter
    def targets(self, value: Any) -> None:
        if not hasattr(value, "__len__") or not hasattr(value, "__getitem__"):
            raise TypeError(f"targets must be a list, an array or a tensor of labels, got {_named(value)}")
        self._targets = value

    @property
    @abstractmethod
    def spec(self) -> ImageSpec:
        """Shape, class names and normalisation of the images."""

    @property
    @abstractmethod
    def _count(self) -> int:
        """Pictures in an epoch: what ``len()`` gives, unless a subclass says otherwise there."""

    @abstractmethod
    def _stands_still(self) -> bool:
        """Whether draws do not begin new epochs."""

    @abstractmethod
    def _epoch_key(self) -> tuple[Any, ...]:
        """What the pictures of the current epoch depend on."""

    @abstractmethod
    def _painted(self) -> NDArray[np.uint8]:
        """The pictures of the current epoch: (N, H, W, 3), or (N, H, W) if grey."""

    def _holds(self, key: tuple[Any, ...]) -> bool:
        """Whether the pictures of ``key`` lie in memory: assigned, edited, or lent and of this very epoch.

        What was lent of another epoch is kept if it was edited, and else let go.
        """
        if self._lent is not None and self._lent.key != key:
            self._settle()
        return self._data is not None or self._lent is not None

    def _look(self) -> None:
        """Note that ``data`` is read, and warn of who reads all pictures from there: that draws none."""
        self._looks += 1
        worker = get_worker_info()
        if self._looks == (2 if worker else self._count + 1) and self._data is None and not self._stands_still():
            warn_caller(
                "data was read again and again, and no picture drawn: it stays the same until a draw begins another "
                "epoch. In a __getitem__ of your own take super().__getitem__(index), or call set_epoch(e) before each "
                "pass; fixed=True, or data = data, if the pictures are to stay"
            )

    def _keep_edits(self) -> None:
        """Make what was lent the set's own if it was edited."""
        if self._lent is not None and self._lent.edited():
            self.data = self._lent.data
            self._lent = None

    def _settle(self) -> None:
        self._keep_edits()
        if self._lent is not None and isinstance(self._lent.data, np.ndarray):
            self._lent.data.flags.writeable = False  # an edit from now on would be lost: let it be heard
        self._lent = None

    def _look_after(self) -> None:
        """Keep what was lent if it was edited: sooner than :meth:`_holds` does, at some cost."""
        if self._lent is not None and not self._lent.looked_after:
            self._lent.looked_after = True
            self._keep_edits()

    def _is_changed(self) -> bool:
        """Whether somebody assigned or edited ``data`` or ``targets``."""
        edited = self._data is not None or (self._lent is not None and self._lent.edited())
        wanted = np.arange(self._count) % self.spec.num_classes
        return edited or not (self._targets is None or np.array_equal(np.asarray(self._targets), wanted))

    def __getstate__(self) -> dict[str, Any]:
        if self._lent is not None and self._lent.edited():
            self._settle()
        return {name: value for name, value in self.__dict__.items() if name != "_lent"}

    def _picture(self, index: int) -> NDArray[np.uint8]:
        """The picture of ``index`` that lies in memory: (H, W, 3) or (H, W)."""
        return self._form.picture(self._data if self._lent is None else self._lent.data, index)

    def _target(self, index: int) -> Any:
        if self._targets is None:
            return index % self.spec.num_classes
        if len(self._targets) != self._count:
            raise ValueError(
                f"{self._count} pictures and {len(self._targets)} labels make no items: assign both, for example "
                "dataset.data, dataset.targets = dataset.data[keep], [dataset.targets[i] for i in keep]"
            )
        return self._form.target(self._targets, index)


class _Lent:
    """Pictures of one epoch in somebody else's hands."""

    def __init__(self, key: tuple[Any, ...], data: Any) -> None:
        self.key, self.data = key, data
        self.looked_after = False  # whether it was found unedited since somebody last got it
        self._sum = self._now()

    def edited(self) -> bool:
        return self._now() != self._sum

    def _now(self) -> int:
        return zlib.crc32(np.ascontiguousarray(self.data).data)


def _named(value: Any) -> str:
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    return type(value).__name__ if shape is None else f"{dtype} {tuple(shape)}"
