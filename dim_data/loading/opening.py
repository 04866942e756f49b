"""What a dataset or loader is opened with: a source, a share of soft labels, arguments meant for another class."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from numbers import Real
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch

from dim_data.generator import Generator
from dim_data.images import torch_defaults

__all__ = ["check_soft_labels", "open_source", "points_to_torchvision"]

P = ParamSpec("P")
S = TypeVar("S")
NOT_OURS = ("root", "download", "split")


def check_soft_labels(generator: Generator, wanted: float) -> float:
    """``wanted`` as a share; ``ValueError`` if it is none, or the generator stores no soft labels to hand out."""
    if not isinstance(wanted, Real) or not 0 <= wanted <= 1:
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


def points_to_torchvision(init: Callable[Concatenate[S, P], None]) -> Callable[Concatenate[S, P], None]:
    """Let a constructor that is called as torchvision's sets are raise a ``TypeError`` with the line that works."""

    def checked(self: S, /, *args: P.args, **kwargs: P.kwargs) -> None:
        given = [name for name in NOT_OURS if name in kwargs]
        if given or len(args) > 1:
            what = f"{', '.join(f'{name}=' for name in given)}" if given else f"{len(args)} positional arguments"
            raise TypeError(f"{type(self).__name__} takes no {what}, as torchvision's sets do: {_line(args, kwargs)}")
        init(self, *args, **kwargs)

    functools.update_wrapper(checked, init)
    return checked


def _line(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    names = ("root", "train", "transform", "target_transform", "download")
    given = [name for name, value in {**dict(zip(names, args, strict=False)), **kwargs}.items() if value is not None]
    kept = "".join(f", {name}={name}" for name in ("transform", "target_transform") if name in given)
    # Of the sets that are bundled, torchvision's SVHN alone is told a split.
    name, part = ("SVHN", "split='train'") if "split" in kwargs else ("CIFAR10", "train=True")
    return (
        f"write DistilledDataset('{name.lower()}', ipc=50{kept}), or, with torchvision's arguments as they are, "
        f"Distilled{name}(root, {part}{kept}, download=True, ipc=50)"
    )
