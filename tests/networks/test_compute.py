from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

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
    monkeypatch.setattr(compute, "_can_compile", lambda: True)
    assert compiled(double) is not double
    assert compiled(double, alone=False) is double
    monkeypatch.undo()
    monkeypatch.delenv("DIM_DATA_COMPILE", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert compiled(double) is double


# A compiler that is there but broken ---------------------------------------------------------------------


class Drawing(nn.Module):
    """Changes a buffer and draws a random number each time, and fails if told to."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x) + torch.rand(2)

    def __len__(self) -> int:
        raise TypeError("a module need not have a length")


@pytest.fixture
def compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIM_DATA_COMPILE", "1")
    monkeypatch.setattr(compute, "_can_compile", lambda: True)
    monkeypatch.setattr(compute._Compiled, "broken", False)


@pytest.mark.usefixtures("compiling")
@pytest.mark.parametrize("at", [1, 2])
def test_a_broken_compiler_is_done_without(at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    def break_down(function: Any) -> Any:
        def run_half(*args: Any) -> Any:
            made.append(function)
            result = function(*args)
            if len(made) == at:
                raise RuntimeError("CppCompileError: no Python.h\nmore of it")
            return result

        return run_half

    monkeypatch.setattr(torch, "compile", break_down)
    x = torch.arange(6.0).reshape(3, 2)
    torch.manual_seed(0)
    plain, wanted = Drawing(), []
    wanted = [plain(x) for _ in range(3)]
    torch.manual_seed(0)
    model = Drawing()
    fast, other = compiled(model), compiled(Drawing())
    found = [fast(x) for _ in range(at - 1)]
    with pytest.warns(RuntimeWarning, match="torch.compile does not work here") as said:
        found += [fast(x) for _ in range(4 - at)]
    text = r"\(RuntimeError: CppCompileError: no Python.h\). From now on nothing is compiled, .*; DIM_DATA_COMPILE=0"
    assert re.search(text, str(said[0].message))
    assert len(said) == 1
    if at == 1:  # later the half that was run is not undone
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)
        torch.testing.assert_close(model.norm.running_mean, plain.norm.running_mean, rtol=0, atol=0)
    other(x)
    assert len(made) == at  # nothing is compiled any more


@pytest.mark.usefixtures("compiling")
def test_a_compiler_that_cannot_even_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(function: Any) -> Any:
        raise PermissionError("/tmp/torchinductor_root")

    monkeypatch.setattr(torch, "compile", refuse)
    with pytest.warns(RuntimeWarning, match=r"PermissionError: /tmp/torchinductor_root\)"):
        assert compiled(len)([1, 2]) == 2


@pytest.mark.usefixtures("compiling")
def test_a_mistake_of_the_function_is_its_own(monkeypatch: pytest.MonkeyPatch, recwarn: Any) -> None:
    def disguise(function: Any) -> Any:
        def run(*args: Any) -> Any:
            try:
                return function(*args)
            except Exception as error:
                raise RuntimeError("a long story of the compiler") from error

        return run

    monkeypatch.setattr(torch, "compile", disguise)
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"):
        compiled(nn.Linear(2, 2))(torch.ones(1, 3))
    assert not recwarn.list
    assert not compute._Compiled.broken
    assert compiled(nn.Linear(2, 2))(torch.ones(1, 2)).shape == (1, 2)


BROKEN = """
import torch
from torch import nn
from dim_data.networks import compute, compiled

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU())
x = torch.rand(8, 4)
fast = compiled(model)
for _ in range(2):
    fast(x).square().sum().backward()
print(compute._Compiled.broken, int(model[1].num_batches_tracked), model[0].weight.grad.isfinite().all().item())
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_a_compiler_that_fails(tmp_path: Path) -> None:
    """As without Python's headers, or on a Mac without its command line tools."""
    compiler = tmp_path / "c++"
    compiler.write_text("#!/bin/sh\nexit 1\n")
    compiler.chmod(0o755)
    places = {"CXX": str(compiler), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"), "DIM_DATA_COMPILE": "1"}
    run = subprocess.run(
        [sys.executable, "-c", BROKEN], env={**os.environ, **places}, capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == ["True", "2", "True"]
    assert run.stderr.count("torch.compile does not work here") == 1


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="needs a C++ compiler")
def test_a_compiled_net_computes_the_same(monkeypatch: pytest.MonkeyPatch, device: torch.device) -> None:
    monkeypatch.setenv("DIM_DATA_COMPILE", "1")
    torch.manual_seed(0)
    model = ConvNet(make_spec(1, 28), width=8, depth=1).to(device)
    images = torch.rand(4, 1, 28, 28, device=device)
    fast = compiled(model)
    assert fast is not model
    for _ in range(2):
        torch.testing.assert_close(fast(images), model(images), rtol=1e-4, atol=1e-4)
    assert not compute._Compiled.broken
    gradients = []
    for net in (fast, model):
        model.zero_grad()
        F.cross_entropy(net(images), torch.arange(4, device=device) % 3).backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)
