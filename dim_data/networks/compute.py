"""How to run fast on the device at hand: number format, memory layout, compilation."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Generic, ParamSpec, TypeVar

import torch
from torch import nn

from dim_data.images import warn_caller
from dim_data.networks.meeting import RankError

__all__ = [
    "autocast",
    "channels_last",
    "compiled",
    "fast_dtype",
    "in_float32",
    "resolve_device",
]

P = ParamSpec("P")
M = TypeVar("M", bound=nn.Module)
R = TypeVar("R")


def resolve_device(device: str | torch.device | None) -> torch.device:
    """``device`` as a :class:`torch.device`; ``None`` means CUDA where there is one, else the CPU.

    Raises:
        RuntimeError: CUDA is asked for and this machine, or this build of torch, has none.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("device 'cuda' was asked for, but torch finds no GPU here; pass device='cpu'")
    return device


def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the processor computes with it natively, float32 otherwise."""
    native = _gpu_has_bfloat16(device) if device.type == "cuda" else device.type == "cpu" and _cpu_has_bfloat16()
    return torch.bfloat16 if native else torch.float32


def _gpu_has_bfloat16(device: torch.device) -> bool:
    # torch.cuda.is_bf16_supported() says yes of a T4 too, which only emulates it, more slowly than float32.
    return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)


def _cpu_has_bfloat16() -> bool:
    # Without AMX or AVX512-BF16 the CPU emulates bfloat16 convolutions, about 15 times slower than float32.
    # Where an Intel has AVX512-BF16 but no AMX, as some virtual machines show it, bfloat16 runs at half the rate of
    # float32; an AMD's runs at twice the rate.
    capabilities = getattr(torch.cpu, "get_capabilities", None)
    if capabilities is not None:
        found = capabilities()
        intel = "intel" in str(found.get("cpu_name", "")).lower()
        return bool(found.get("amx_bf16") or (found.get("avx512_bf16") and not intel))
    probe = getattr(torch.cpu, "_is_amx_tile_supported", None)  # torch before 2.12
    return bool(probe is not None and probe())


def autocast(device: torch.device, dtype: torch.dtype | None = None) -> AbstractContextManager[None]:
    """An autocast context to ``dtype`` (default: :func:`fast_dtype`); does nothing for float32.

    Converted weights are not kept: inside a caller's own autocast torch would keep them over all steps of a training,
    which then went on with the weights it began with.
    """
    dtype = fast_dtype(device) if dtype is None else dtype
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32, cache_enabled=False)


def channels_last(network: M, device: torch.device | None = None) -> M:
    """The network itself on ``device``, its weights in the order in memory in which convolutions are fastest."""
    moved: M = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return moved


def in_float32(network: M) -> M:
    """The network itself if its weights are float32, else a copy of it whose weights are."""
    if all(p.dtype == torch.float32 for p in network.parameters()):
        return network
    return copy.deepcopy(network).float()


def compiled(function: Callable[P, R], alone: bool = True) -> Callable[P, R]:
    """``torch.compile(function)`` where that can work, ``function`` itself otherwise.

    Compilation fuses normalisation, activation and pooling, which halves a ConvNet's step on a CPU.
    It needs a C++ compiler on the machine, and where there is a GPU Triton and a GPU that Triton knows.
    A compiler that is there but broken shows at the first call: from then on, after one warning, nothing in the
    process is compiled. ``DIM_DATA_COMPILE=0`` turns it off.

    Args:
        function: Any.
        alone: Whether it asks no other process for anything: where the compiler fails, some of it runs twice, and the
            others would hear twice of what they wait for once. One that is not alone is left as it is.
    """
    wanted = alone and os.environ.get("DIM_DATA_COMPILE", "1") != "0"
    return _Compiled(function) if wanted and _can_compile() else function


class _Compiled(Generic[P, R]):
    """A function that is compiled when it is first called, and called as it is once that has failed anywhere."""

    broken = False

    def __init__(self, function: Callable[P, R]) -> None:
        self._plain = function
        self._fast: Callable[P, R] | None = None  # once it has been seen to work

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if _Compiled.broken:
            return self._plain(*args, **kwargs)
        try:
            if self._fast is not None:
                return self._fast(*args, **kwargs)
            with _as_before(self._plain), _both_ways():
                fast = torch.compile(self._plain)
                result = fast(*args, **kwargs)
            self._fast = fast
            return result
        except RankError:  # of what goes over the network in the middle of it
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {(str(error).strip() or 'no reason given').splitlines()[0]}"
        result = self._plain(*args, **kwargs)  # if the function itself is at fault, it says so, and better
        _Compiled.broken = True
        warn_caller(
            f"torch.compile does not work here ({reason}). From now on nothing is compiled, which takes up to twice as "
            f"long; DIM_DATA_COMPILE=0 says so beforehand, without this warning",
            RuntimeWarning,
        )
        return result


@contextmanager
def _as_before(function: Any) -> Iterator[None]:
    """Undo what ``function`` did to its buffers and to random numbers, if it fails: in pieces, some of it may run."""
    buffers = list(function.buffers()) if isinstance(function, nn.Module) else []
    values, state = [buffer.clone() for buffer in buffers], torch.get_rng_state()
    try:
        yield
    except Exception:
        for buffer, value in zip(buffers, values, strict=True):
            buffer.data.copy_(value)
        torch.set_rng_state(state)
        raise


def _both_ways() -> AbstractContextManager[None]:
    """Compile the way back along with the way there: left for later, it would fail in the middle of a step."""
    config: Any = import_module("torch._functorch.config")
    eagerly = "force_non_lazy_backward_lowering"  # torch 2.4 has no such thing
    return config.patch(eagerly, True) if hasattr(config, eagerly) else nullcontext()


def _can_compile() -> bool:
    if not any(shutil.which(name) for name in (os.environ.get("CXX", ""), "c++", "g++", "clang++") if name):
        return False
    if not torch.cuda.is_available():
        return True
    return find_spec("triton") is not None and torch.cuda.get_device_capability() >= (7, 0)
