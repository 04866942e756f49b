"""Reading a generator's files: what in them may be trusted.

Only JSON and safetensors are read. Names, shapes and sizes are checked against the config before anything is
allocated, so a hostile file costs nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dim_data.format.config import GeneratorConfig
from dim_data.format.files import CONFIG, WEIGHTS, check_size
from dim_data.format.weights import stored_as

__all__ = [
    "read_config",
    "read_header",
    "read_json",
    "read_weights",
]

MAX_PARAMETERS = 500_000_000
MAX_HEADER = 1_000_000
MAX_JSON = 4_000_000
DTYPES = {
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "I8": torch.int8,
    "U8": torch.uint8,
    "I64": torch.int64,
}


def read_json(path: Path) -> Any:
    """The JSON in the file ``path``, as RFC 8259 has it: no NaN, and no key twice in one object.

    Raises:
        ValueError: It is longer than :data:`MAX_JSON` bytes, or not such JSON.
    """
    with path.open("rb") as file:
        content = file.read(MAX_JSON + 1)
    if len(content) > MAX_JSON:
        raise ValueError(f"{path} is over {MAX_JSON // 1_000_000} MB: not a generator config")
    try:
        return _parse(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {_brief(error)}") from error


def _parse(content: bytes) -> Any:
    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is not a JSON number")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) != len(pairs):
            raise ValueError("an object has the same key twice")
        return values

    def finite(text: str) -> float:
        return float(text) if math.isfinite(float(text)) else refuse(text)

    return json.loads(content.decode("utf-8"), object_pairs_hook=unique, parse_constant=refuse, parse_float=finite)


def _brief(error: BaseException) -> str:
    """What an error says, but not all of what an untrusted file made it say."""
    text = str(error)
    return text if len(text) <= 1000 else f"{text[:1000]}..."


def read_config(path: Path) -> GeneratorConfig:
    """The config in the JSON file ``path``; ``ValueError`` says what is wrong with it."""
    values = read_json(path)
    try:
        return GeneratorConfig.from_dict(values)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {_brief(error)}") from error


def read_header(path: Path) -> dict[str, tuple[str, list[int]]]:
    """Kind and shape of each tensor in the safetensors file ``path``; no tensor is read.

    The file begins with the length of a JSON header, which says where each tensor's bytes lie. They must fill
    the rest of the file exactly, in the order of their places.

    Raises:
        ValueError: The header is not such a one.
    """
    size = path.stat().st_size
    check_size(str(path), WEIGHTS, size)
    problem = f"{path} is not a readable safetensors file (truncated?)"
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length.to_bytes(8, "little") == b"version ":
            raise ValueError(f"{path} is a pointer of Git LFS, not the weights: `git lfs pull` fetches them")
        if size < 8 or not 2 <= length <= min(MAX_HEADER, size - 8):
            raise ValueError(f"{problem}: its header does not fit in it")
        content = file.read(length)
    try:
        header = _parse(content)
        if not isinstance(header, dict) or not isinstance(header.pop("__metadata__", {}), dict):
            raise ValueError("its header is no mapping")
        places = [(*_place(name, entry), name) for name, entry in header.items()]
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{problem}: {_brief(error)}") from error
    end = 0
    for start, stop, name in sorted(places):
        if start != end:
            raise ValueError(f"{problem}: tensor {name[:99]!r} begins at byte {start}, not at {end}")
        end = stop
    if 8 + length + end != size:
        raise ValueError(f"{problem}: it has {size} bytes, its header says {8 + length + end}")
    return {name: (entry["dtype"], entry["shape"]) for name, entry in header.items()}


def _place(name: str, entry: Any) -> tuple[int, int]:
    """Where a tensor's bytes lie, once its header entry is found to be sound."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"tensor {name[:99]!r} has no dtype, shape and data_offsets")
    shape, offsets, dtype = entry["shape"], entry["data_offsets"], entry["dtype"]
    for numbers in (shape, offsets):
        if not isinstance(numbers, list) or not all(type(n) is int and 0 <= n < 1 << 48 for n in numbers):
            raise ValueError(f"tensor {name[:99]!r} has bad numbers")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"tensor {name[:99]!r} is {str(dtype)[:99]!r}, not one of {', '.join(DTYPES)}")
    if len(shape) > 8 or len(offsets) != 2 or offsets[1] - offsets[0] != math.prod(shape) * DTYPES[dtype].itemsize:
        raise ValueError(f"tensor {name[:99]!r} does not have the bytes of its shape")
    return offsets[0], offsets[1]


def read_weights(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the safetensors file ``path``, which must be exactly those ``expected`` (on the meta device).

    They come as they are stored: :func:`~dim_data.format.unpacked_weights` makes weights of those in 8 or 4 bits.

    Raises:
        ValueError: The file is truncated, a tensor is missing, unexpected, of another shape or kind, or not
            finite, or the config asks for too much.
    """
    total = sum(t.numel() for t in expected.values() if t.is_floating_point())
    if total > MAX_PARAMETERS:
        raise ValueError(f"{path.with_name(CONFIG)} asks for {total} parameters; the limit is {MAX_PARAMETERS}")
    found = read_header(path)
    wanted = stored_as(expected, {name: DTYPES[kind] for name, (kind, _) in found.items()})
    problems = [f"no tensor {n!r}" for n in wanted if n not in found]
    problems += [f"unexpected tensor {n[:99]!r}" for n in found if n not in wanted]
    for name in found.keys() & wanted.keys():
        (kind, shape), tensor = found[name], wanted[name]
        if shape != list(tensor.shape):
            problems.append(f"tensor {name!r} has shape {shape}, the config asks for {list(tensor.shape)}")
        elif DTYPES[kind] != tensor.dtype and not (DTYPES[kind].is_floating_point and tensor.is_floating_point()):
            problems.append(f"tensor {name!r} is {DTYPES[kind]}, expected {tensor.dtype}")
    if problems:
        raise ValueError(f"{path} does not fit its config: {'; '.join(sorted(problems)[:5])}")
    try:
        with safe_open(path, framework="pt") as file:
            stored = {name: file.get_tensor(name) for name in wanted}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a readable safetensors file (truncated?): {_brief(error)}") from error
    for tensor in stored.values():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ValueError(f"{path} holds NaN or infinite weights")
    return stored
