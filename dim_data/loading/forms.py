"""The forms in which torchvision's own sets hold their pictures and labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dim_data.images import HELD_AS, KNOWN_SPECS, ImageSpec

__all__ = ["Alias", "Arrays", "Planes", "Tensors", "form_of"]


class Arrays:
    """As CIFAR10: pictures in an array, uint8 (N, H, W, 3), or (N, H, W) if grey, labels in a list."""

    aliases: tuple[str, ...] = ()
    shape = "(N, H, W, 3), or (N, H, W) if grey"

    def hold(self, pictures: NDArray[np.uint8]) -> Any:
        """Pictures, uint8 (N, H, W, 3) or (N, H, W), in this form."""
        return pictures

    def label(self, labels: list[int]) -> Any:
        """Labels in this form."""
        return labels

    def picture(self, data: Any, index: int) -> NDArray[np.uint8]:
        """One picture of ``data``, (H, W, 3) or (H, W), as it is or as a view of it."""
        return np.asarray(data[index])

    def target(self, targets: Any, index: int) -> Any:
        """One label of ``targets``, as torchvision's set hands it out."""
        return targets[index]

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether pictures may be given in an array of this shape."""
        return len(shape) == 3 or (len(shape) == 4 and shape[3] == 3)


class Tensors(Arrays):
    """As MNIST and FashionMNIST: pictures in a tensor, uint8 (N, H, W), labels in a tensor, int64 (N,)."""

    aliases = ("train_data", "train_labels")

    def hold(self, pictures: NDArray[np.uint8]) -> Any:  # noqa: D102
        return torch.from_numpy(pictures)

    def label(self, labels: list[int]) -> Any:  # noqa: D102
        return torch.tensor(labels)

    def target(self, targets: Any, index: int) -> Any:  # noqa: D102
        return int(targets[index])


class Planes(Arrays):
    """As SVHN: pictures in an array, uint8 (N, 3, H, W), labels in an array, int64 (N,)."""

    aliases = ("labels",)
    shape = "(N, 3, H, W)"

    def hold(self, pictures: NDArray[np.uint8]) -> Any:  # noqa: D102
        return np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))

    def label(self, labels: list[int]) -> Any:  # noqa: D102
        return np.array(labels, np.int64)

    def picture(self, data: Any, index: int) -> NDArray[np.uint8]:  # noqa: D102
        return np.asarray(data[index]).transpose(1, 2, 0)

    def target(self, targets: Any, index: int) -> Any:  # noqa: D102
        return int(targets[index])

    def fits(self, shape: Sequence[int]) -> bool:  # noqa: D102
        return len(shape) == 4 and shape[1] == 3


_FORMS = {"tensors": Tensors(), "planes": Planes()}
_ARRAYS = Arrays()


def form_of(spec: ImageSpec) -> Arrays:
    """The form of torchvision's set of these images; for own sets that of CIFAR10."""
    return _FORMS.get(HELD_AS.get(spec.name, ""), _ARRAYS) if spec == KNOWN_SPECS.get(spec.name) else _ARRAYS


class Alias:
    """Another name of an attribute in sets whose form has it; in others an attribute like any that may be set."""

    def __init__(self, target: str) -> None:
        self.target = target

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        if self.name in instance._form.aliases:
            return getattr(instance, self.target)
        try:
            return instance.__dict__[self.name]
        except KeyError:
            raise AttributeError(f"{type(instance).__name__!r} object has no attribute {self.name!r}") from None

    def __set__(self, instance: Any, value: Any) -> None:
        if self.name in instance._form.aliases:
            setattr(instance, self.target, value)
        else:
            instance.__dict__[self.name] = value
