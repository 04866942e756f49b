"""A CUDA device for machines that have none: tensors in CPU memory that say they are on a GPU.

Most users train on a GPU, and most machines that run these tests have none. Inside :func:`pretend_cuda`, ``"cuda"`` is
a device like any other, operators raise where CUDA would because devices or random generators are mixed, and what is
computed is the CPU's. It finds a forgotten ``.to(device)``; of kernels, bfloat16, speed and memory it says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

CUDA = torch.device("cuda", 0)
aten = torch.ops.aten
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
ACROSS = {aten._to_copy.default, aten.copy_.default, *INDEXING}  # the operators that may take both devices
make_tensor = torch.tensor


class Pretend(Tensor):
    """A tensor on the device that is not there, around one that is."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Pretend:
        # To C++ it is a meta tensor: that of a GPU would make autograd ask the driver.
        made = Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device="meta",
        )
        made.inner = inner
        return made

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_meta = property(lambda self: False)

    def tolist(self) -> Any:
        return self.inner.detach().tolist()

    def new_tensor(self, data: Any, **options: Any) -> Tensor:
        return _tensor(data, **{"device": CUDA, "dtype": self.dtype, **options})

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if id(self) not in memo:
            copy = Pretend(self.inner.detach().clone()).requires_grad_(self.requires_grad)
            memo[id(self)] = torch.nn.Parameter(copy) if isinstance(self, torch.nn.Parameter) else copy
            memo[id(self)].requires_grad_(self.requires_grad)
        return memo[id(self)]

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.inner.detach().clone().__reduce_ex__(protocol)  # as torch.load with map_location="cpu" reads it

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(op, args, kwargs or {})


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(op, args, kwargs or {})


def _tensor(data: Any, *, device: Any = None, **options: Any) -> Tensor:
    made = make_tensor(data, **options)  # this one never asks a dispatch mode
    return made if device is None else made.to(device)


def _one_hot(labels: Tensor, classes: int) -> Tensor:
    return (labels[..., None] == torch.arange(classes, device=labels.device)).long()  # C++ makes the range itself


def _run(op: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    flat = tree_flatten((args, kwargs))[0]
    tensors = [x for x in flat if isinstance(x, Tensor)]
    there = [x for x in tensors if isinstance(x, Pretend)]
    _check(op, args, tensors, there, flat)
    wanted = torch.device(kwargs["device"]).type if kwargs.get("device") is not None else None
    real = tree_map(_unwrap, (args, kwargs))
    out = op(*real[0], **real[1])
    stays = isinstance(args[0], Pretend) if op is aten.copy_.default else wanted != "cpu" and bool(there)
    if op is aten._local_scalar_dense.default or not (stays or wanted == "cuda"):
        return out
    known = {id(x.inner): x for x in there}  # an operator in place gives back what it was given
    return tree_map(lambda x: (known[id(x)] if id(x) in known else Pretend(x)) if isinstance(x, Tensor) else x, out)


def _unwrap(x: Any) -> Any:
    if isinstance(x, torch.device):
        return torch.device("cpu")
    return x.inner if isinstance(x, Pretend) else x


def _check(op: Any, args: Any, tensors: list[Tensor], there: list[Pretend], flat: list[Any]) -> None:
    if there and op not in ACROSS and any(x.ndim and not isinstance(x, Pretend) for x in tensors):
        raise RuntimeError(f"Expected all tensors to be on the same device, found two in {op}")
    if op in INDEXING and not isinstance(args[0], Pretend) and any(isinstance(x, Pretend) for x in args[1]):
        raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
    on_cuda = there or any(isinstance(x, torch.device) and x.type == "cuda" for x in flat)
    if on_cuda and any(isinstance(x, torch.Generator) for x in flat):
        raise RuntimeError(f"Expected a 'cuda' device type for generator but found 'cpu' in {op}")


@contextmanager
def pretend_cuda() -> Iterator[torch.device]:
    """Within it CUDA seems to be there; gives the device."""
    torch._C._ensureCUDADeviceGuardSet()
    swapped = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with (
            mock.patch.object(torch.cuda, "is_available", return_value=True),
            mock.patch.object(torch.cuda, "get_device_capability", return_value=(7, 5)),
            mock.patch.object(torch.cuda, "_lazy_init", return_value=None),
            mock.patch.object(torch.cuda, "mem_get_info", return_value=(1 << 30, 1 << 30)),
            mock.patch.object(torch.cuda, "device", nullcontext),
            mock.patch.object(torch.cuda, "manual_seed"),
            mock.patch.object(torch.cuda, "get_rng_state", return_value=torch.zeros(16, dtype=torch.uint8)),
            mock.patch.object(torch.cuda, "set_rng_state"),
            mock.patch.object(torch, "tensor", _tensor),
            mock.patch.object(torch.nn.functional, "one_hot", _one_hot),
            mock.patch.dict("os.environ", DIM_DATA_COMPILE="0"),
            _Mode(),
        ):
            yield CUDA
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(swapped)
