"""What callers switch on in torch and around it, one by one, and how things stand."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dim_data.images.real import LabelledImages


@contextmanager
def switched(setter: Callable[[Any], object], value: Any, back: Any) -> Iterator[None]:
    setter(value)
    try:
        yield
    finally:
        setter(back)


@contextmanager
def strict_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def set_benchmark(value: bool) -> None:
    torch.backends.cudnn.benchmark = value


SWITCHES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "float64": lambda: switched(torch.set_default_dtype, torch.float64, torch.float32),
    "bfloat16": lambda: switched(torch.set_default_dtype, torch.bfloat16, torch.float32),
    "meta": lambda: torch.device("meta"),
    "default_device": lambda: switched(torch.set_default_device, "meta", None),
    "deterministic": lambda: switched(torch.use_deterministic_algorithms, True, False),
    "precision": lambda: switched(torch.set_float32_matmul_precision, "medium", "highest"),
    "benchmark": lambda: switched(set_benchmark, True, False),
    "threads": lambda: switched(torch.set_num_threads, 2, torch.get_num_threads()),
    "errstate": lambda: np.errstate(all="raise"),
    "warnings": strict_warnings,
}
SURROUNDINGS = [
    "autocast",
    "no_grad float64",
    "inference_mode meta",
    "autocast bfloat16 default_device",
    "deterministic precision benchmark errstate warnings",
]
"""Switches that are on together, each of those above in one of them."""


@contextmanager
def inside(surroundings: str) -> Iterator[None]:
    """With all switches on that ``surroundings`` names."""
    with ExitStack() as stack:
        for name in surroundings.split():
            stack.enter_context(SWITCHES[name]())
        yield


def switches() -> tuple[Any, ...]:
    """How they stand, and where the caller's random numbers are."""
    empty = torch.empty(0)
    return (
        torch.is_autocast_enabled("cpu"),
        torch.is_autocast_cache_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_grad_enabled(),
        empty.dtype,
        empty.device,
        torch.are_deterministic_algorithms_enabled(),
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.benchmark,
        torch.get_num_threads(),
        torch.get_rng_state().tolist(),
    )


def plain(value: Any) -> Any:
    """A result to compare; tensors in it are ones to train on."""
    if isinstance(value, nn.Module):
        return {name: plain(tensor) for name, tensor in value.state_dict(keep_vars=True).items()}
    if isinstance(value, LabelledImages):
        return [plain(value.images), plain(value.labels), value.spec]
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Tensor):
        assert not value.is_inference()
        assert value.device.type == "cpu"
        bits = value.detach().contiguous().reshape(-1).view(torch.uint8)
        return value.dtype, value.shape, value.requires_grad, bits.numpy().tobytes()
    return value
