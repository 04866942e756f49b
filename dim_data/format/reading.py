"""Reading a generator's files: what in them may be trusted.

Only JSON and safetensors are read. Names, shapes and sizes are checked against the config before anything is
allocated, so a hostile file costs nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dim_data.format.config import GeneratorConfig
from dim_data.format.files import CONFIG, MAX_BYTES, WEIGHTS, check_size
from dim_data.format.weights import stored_as

__all__ = [
    "read_config",
    "read_json",
    "read_weights",
]

MAX_PARAMETERS = 500_000_000
MAX_HEADER = 1_000_000
"""Bytes of a safetensors file that say what is in it."""
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
        ValueError: It is longer than a config may be, or not such JSON.
    """
    limit = MAX_BYTES[CONFIG]
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"{path} is over {limit // 1_000_000} MB: not a generator config")
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


def _brief(error: object) -> str:
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


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The safetensors file ``path``, open. Its header is sound, and the tensors fill the rest of it exactly.

    Raises:
        ValueError: It is no such file, is cut short or goes on after its tensors, or is larger than any generator.
    """
    check_size(str(path), WEIGHTS, path.stat().st_size)
    with path.open("rb") as file:
        start = file.read(8)
    if start == b"version ":
        raise ValueError(f"{path} is a pointer of Git LFS, not the weights: `git lfs pull` fetches them")
    if int.from_bytes(start, "little") > MAX_HEADER:
        raise ValueError(f"{path} is not a readable safetensors file: its header is over {MAX_HEADER} bytes")
    try:
        with safe_open(path, framework="pt") as opened:
            yield opened
    except SafetensorError as error:
        raise ValueError(f"{path} is not a readable safetensors file (truncated?): {_brief(error)}") from error


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
    with _opened(path) as file:
        found = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - no mapping; reads no tensor
        kinds = {name: DTYPES.get(part.get_dtype()) for name, part in found.items()}
        wanted = stored_as(expected, {name: kind for name, kind in kinds.items() if kind})
        problems = [f"no tensor {n!r}" for n in wanted if n not in found]
        problems += [f"unexpected tensor {n[:99]!r}" for n in found if n not in wanted]
        for name in found.keys() & wanted.keys():
            shape, kind, tensor = found[name].get_shape(), kinds[name], wanted[name]
            if shape != list(tensor.shape):
                problems.append(f"tensor {name!r} has shape {shape}, the config asks for {list(tensor.shape)}")
            elif kind != tensor.dtype and not (kind and kind.is_floating_point and tensor.is_floating_point()):
                problems.append(f"tensor {name!r} is {kind or found[name].get_dtype()}, expected {tensor.dtype}")
        if problems:
            raise ValueError(f"{path} does not fit its config: {'; '.join(map(_brief, sorted(problems)[:5]))}")
        stored = {name: file.get_tensor(name) for name in wanted}
    for tensor in stored.values():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ValueError(f"{path} holds NaN or infinite weights")
    return stored
