"""The bundled sets under torchvision's signatures, for scripts of which only a class's name is changed."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from dim_data.generator import Generator
from dim_data.loading.dataset import DistilledDataset

__all__ = ["DistilledCIFAR10", "DistilledEuroSAT", "DistilledFashionMNIST", "DistilledMNIST", "DistilledSVHN"]

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class _Named(DistilledDataset):
    _bundled: str

    def _stand_in(self, root: str | Path | None, source: Generator | str | Path | None, **options: Any) -> None:
        super().__init__(self._bundled if source is None else source, **options)
        self.root = root


class _WithTrain(_Named):
    def __init__(
        self,
        root: str | Path | None = None,
        train: bool = True,
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
        download: bool = False,
        *,
        source: Generator | str | Path | None = None,
        **options: Any,
    ) -> None:
        self._stand_in(root, source, train=train, transform=transform, target_transform=target_transform, **options)


class DistilledCIFAR10(_WithTrain):
    """:class:`DistilledDataset` of ``"cifar10"``, with the signature of torchvision's ``CIFAR10``.

    Args:
        root: Kept, and else ignored: nothing is read from there.
        train: Only ``True`` makes sense: synthetic images are no test set.
        transform: As of :class:`DistilledDataset`.
        target_transform: As of :class:`DistilledDataset`.
        download: Ignored: what is bundled is here already.
        source: Another generator of such images, in place of the bundled one.
        **options: ``ipc``, ``seed``, ``fixed``, ... of :class:`DistilledDataset`.
    """

    _bundled = "cifar10"


class DistilledMNIST(_WithTrain):
    """:class:`DistilledDataset` of ``"mnist"``, with the signature of torchvision's ``MNIST``.

    The arguments are those of :class:`DistilledCIFAR10`.
    """

    _bundled, _tested_on = "mnist", "torchvision.datasets.MNIST(root, train=False)"

    @cached_property
    def classes(self) -> list[str]:
        """Class names as torchvision has them, ``"0 - zero"`` and so on."""
        names = {str(digit): f"{digit} - {word}" for digit, word in enumerate(DIGITS)}
        return [names.get(name, name) for name in self.spec.classes]


class DistilledFashionMNIST(_WithTrain):
    """:class:`DistilledDataset` of ``"fashion_mnist"``, with the signature of torchvision's ``FashionMNIST``.

    The arguments are those of :class:`DistilledCIFAR10`.
    """

    _bundled, _tested_on = "fashion_mnist", "torchvision.datasets.FashionMNIST(root, train=False)"


class DistilledSVHN(_Named):
    """:class:`DistilledDataset` of ``"svhn"``, with the signature of torchvision's ``SVHN``.

    Its ``split`` is the word ``"train"``, as torchvision's has it, and called what it is of :class:`DistilledDataset`.
    The data is for non-commercial use only (http://ufldl.stanford.edu/housenumbers/).

    Args:
        root: As of :class:`DistilledCIFAR10`.
        split: Only ``"train"``: what ``"extra"`` has was never distilled, and synthetic images are no test set.
        transform: As of :class:`DistilledDataset`.
        target_transform: As of :class:`DistilledDataset`.
        download: As of :class:`DistilledCIFAR10`.
        source: As of :class:`DistilledCIFAR10`.
        **options: As of :class:`DistilledCIFAR10`.

    Raises:
        ValueError: Another ``split``, or what :class:`DistilledDataset` raises.
    """

    _bundled, _tested_on = "svhn", "torchvision.datasets.SVHN(root, split='test')"

    def __init__(
        self,
        root: str | Path | None = None,
        split: str = "train",
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
        download: bool = False,
        *,
        source: Generator | str | Path | None = None,
        **options: Any,
    ) -> None:
        if split != "train":
            raise ValueError(
                f"split={split!r} is not what was distilled: pass split='train', and test on the real images, for "
                f"example {self._tested_on}"
            )
        self._stand_in(root, source, transform=transform, target_transform=target_transform, **options)

    @property
    def split(self) -> _Word:  # type: ignore[override]
        """The word ``"train"``; ``split(holdout=0.1)`` is :meth:`DistilledDataset.split`."""
        return _Word("train", super().split)


class _Word(str):
    """A word that can be called, too."""

    _call: Callable[..., Any]

    def __new__(cls, word: str, call: Callable[..., Any]) -> _Word:
        made = super().__new__(cls, word)
        made._call = call
        return made

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self._call(*args, **options)


class DistilledEuroSAT(_Named):
    """:class:`DistilledDataset` of ``"eurosat"``, with the signature of torchvision's ``EuroSAT``.

    Torchvision's holds all 27,000 images, and a script keeps some of them to test on. The bundled generator was made
    from those whose file names end in 1 to 600, 6,000 in all: test on others.

    Args:
        root: As of :class:`DistilledCIFAR10`.
        transform: As of :class:`DistilledDataset`.
        target_transform: As of :class:`DistilledDataset`.
        download: As of :class:`DistilledCIFAR10`.
        loader: Only ``None``: no file is read. A ``transform`` makes of the PIL image what a loader would hand out.
        source: As of :class:`DistilledCIFAR10`.
        **options: As of :class:`DistilledCIFAR10`.

    Raises:
        ValueError: There is a ``loader``, or what :class:`DistilledDataset` raises.
    """

    _bundled, _tested_on = "eurosat", "those of torchvision.datasets.EuroSAT(root) that are numbered past 600"

    def __init__(
        self,
        root: str | Path | None = None,
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
        download: bool = False,
        loader: None = None,
        *,
        source: Generator | str | Path | None = None,
        **options: Any,
    ) -> None:
        if loader is not None:
            raise ValueError(
                "loader= reads files, and here are none: items are PIL images, of which transform= makes what you "
                "want, for example torchvision.transforms.PILToTensor()"
            )
        self._stand_in(root, source, transform=transform, target_transform=target_transform, **options)
