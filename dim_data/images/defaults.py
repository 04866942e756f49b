"""Torch as it starts out: what is computed here must not depend on what the caller has switched on."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ParamSpec, TypeVar

import torch

__all__ = ["are_default", "in_steps", "torch_defaults"]

P = ParamSpec("P")
T = TypeVar("T")

_BY_OPERATOR = hasattr(torch.backends.mkldnn, "matmul")  # from torch 2.9 on


@contextmanager
def torch_defaults(*, painting: bool = False) -> Iterator[None]:
    """A context, or a function's decorator, with torch's switches at their defaults, whatever the caller's are.

    No autocast, no inference mode, gradients on, float32 and the CPU where nothing else is said, and full precision of
    float32 on the CPU. Afterwards all is as it was. Random numbers are not touched, nor which libraries torch may use,
    nor whether it must be deterministic.

    What the caller hands in to be called, such as ``transform`` or ``on_step``, belongs outside.

    Args:
        painting: No gradients, and on a GPU no kernels chosen by the clock: the same bits each time. The default number
            format is left alone, for it is every thread's and pictures may be made beside a training: what makes them
            names its own.
    """
    with ExitStack() as stack:
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.set_grad_enabled(not painting))
        if torch.empty(0).device.type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if not painting and torch.get_default_dtype() != torch.float32:
            stack.callback(torch.set_default_dtype, torch.get_default_dtype())
            torch.set_default_dtype(torch.float32)
        for place, name, value in _switches(painting):
            found = getattr(place, name)
            if found not in ("none", value):  # "none" is full precision too, where nothing else was asked for
                stack.callback(setattr, place, name, found)
                setattr(place, name, value)
        if not _BY_OPERATOR and torch.get_float32_matmul_precision() != "highest":
            stack.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
            torch.set_float32_matmul_precision("highest")
        yield


def are_default() -> bool:
    """Whether the process's precision is as torch starts out: then a thread in :func:`torch_defaults` changes none."""
    found = (getattr(place, name) in ("none", value) for place, name, value in _switches(painting=False))
    return all(found) and (_BY_OPERATOR or torch.get_float32_matmul_precision() == "highest")


def _switches(painting: bool) -> Iterator[tuple[Any, str, Any]]:
    """Switches of the whole process, each with the place it is in and its default."""
    if painting:
        yield torch.backends.cudnn, "benchmark", False
    if _BY_OPERATOR:
        for kind in ("matmul", "conv"):
            yield getattr(torch.backends.mkldnn, kind), "fp32_precision", "ieee"


def in_steps(*, painting: bool = False) -> Callable[[Callable[P, Iterator[T]]], Callable[P, Iterator[T]]]:
    """A decorator for generator functions: in :func:`torch_defaults` while they work, out of it at each ``yield``.

    Neither do the caller's switches reach into a training loop nor the loop's out of it.
    """

    def decorate(function: Callable[P, Iterator[T]]) -> Callable[P, Iterator[T]]:
        @functools.wraps(function)
        def stepped(*args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
            items, end = function(*args, **kwargs), object()
            while True:
                with torch_defaults(painting=painting):
                    item: Any = next(items, end)
                if item is end:
                    return
                yield item

        return stepped

    return decorate
