from __future__ import annotations

import shutil
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from conftest import make_spec
from dim_data.networks import compute
from dim_data.networks.classifiers import ConvNet
from dim_data.networks.compute import autocast, compiled, fast_dtype, resolve_device

CPU = torch.device("cpu")


def test_devices() -> None:
    assert resolve_device("cpu") == resolve_device(CPU) == CPU
    assert resolve_device(None).type == ("cuda" if torch.cuda.is_available() else "cpu")
    if not torch.cuda.is_available():
        for name in ("cuda", "cuda:1", torch.device("cuda")):
            with pytest.raises(RuntimeError, match="device 'cuda' was asked for, but torch finds no GPU here; pass"):
                resolve_device(name)


@pytest.mark.parametrize("native", [True, False])
def test_the_fast_format_is_what_the_processor_has(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "_cpu_has_bfloat16", lambda: native)
    wanted = torch.bfloat16 if native else torch.float32
    assert fast_dtype(CPU) == wanted
    with autocast(CPU):
        assert F.linear(torch.ones(2, 2), torch.ones(2, 2)).dtype == wanted
    for dtype in (torch.float32, torch.bfloat16):
        with autocast(CPU, dtype):
            assert F.linear(torch.ones(2, 2), torch.ones(2, 2)).dtype == dtype


@pytest.mark.parametrize(
    ("found", "native"),
    [
        ({}, False),
        ({"amx_bf16": False}, False),
        ({"amx_bf16": True, "cpu_name": "Intel Xeon"}, True),
        ({"avx512_bf16": True, "cpu_name": "AMD EPYC"}, True),
        ({"avx512_bf16": True}, True),
        ({"avx512_bf16": True, "amx_bf16": False, "cpu_name": "Intel Xeon"}, False),  # half the rate of float32
    ],
)
def test_capabilities_are_asked_for(found: dict[str, Any], native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    assert compute._cpu_has_bfloat16() == native


@pytest.mark.parametrize(
    ("capability", "hip", "native"),
    [((9, 0), None, True), ((8, 0), None, True), ((7, 5), None, False), ((6, 0), None, False), ((9, 4), "6.2", True)],
)
def test_a_gpu_must_compute_in_bfloat16_natively(
    capability: tuple[int, int], hip: str | None, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.version, "hip", hip)
    assert fast_dtype(torch.device("cuda")) == (torch.bfloat16 if native else torch.float32)


@pytest.mark.parametrize(
    ("triton", "capability", "compiles"),
    [(True, (7, 0), True), (True, (9, 0), True), (True, (6, 1), False), (False, (9, 0), False)],
)
def test_compilation_needs_what_the_gpu_needs(
    triton: bool, capability: tuple[int, int], compiles: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DIM_DATA_COMPILE", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(compute, "find_spec", lambda name: object() if triton else None)
    assert (compiled(print) is not print) == compiles


def test_compilation_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    def double(x: int) -> int:
        return 2 * x

    monkeypatch.setenv("DIM_DATA_COMPILE", "0")
    assert compiled(double) is double
    monkeypatch.delenv("DIM_DATA_COMPILE")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert compiled(double) is double


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="needs a C++ compiler")
def test_a_compiled_net_computes_the_same(monkeypatch: pytest.MonkeyPatch, device: torch.device) -> None:
    monkeypatch.setenv("DIM_DATA_COMPILE", "1")
    torch.manual_seed(0)
    model = ConvNet(make_spec(1, 28), width=8, depth=1).to(device)
    images = torch.rand(4, 1, 28, 28, device=device)
    fast = compiled(model)
    assert fast is not model
    torch.testing.assert_close(fast(images), model(images), rtol=1e-4, atol=1e-4)
    gradients = []
    for net in (fast, model):
        model.zero_grad()
        F.cross_entropy(net(images), torch.arange(4, device=device) % 3).backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)
