"""A generator's files: where a source is, and what in them may be trusted.

Only JSON and safetensors are read. Names, shapes and sizes are checked against the config before anything is
allocated, so a hostile file costs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from dim_data import hub
from dim_data.config import GeneratorConfig

__all__ = ["BUNDLED", "bundled_names", "read_config", "read_weights", "resolve"]

MAX_PARAMETERS = 500_000_000
BUNDLED = Path(__file__).with_name("bundled")


def bundled_names() -> list[str]:
    """Names of the generators that ship with the library."""
    return sorted(p.parent.name for p in BUNDLED.glob(f"*/{hub.CONFIG}"))


def resolve(source: str | Path, revision: str | None, token: str | bool | None) -> tuple[Path, str | None]:
    """The folder that holds a source's files, and its commit if it came from the Hub.

    Raises:
        FileNotFoundError: It is no folder with both files, no bundled name and no Hub repository.
        TypeError: ``source`` is neither a string nor a path.
    """
    forms = (
        f"a source is a folder with {hub.CONFIG} and {hub.WEIGHTS}, a bundled name "
        f"({', '.join(bundled_names()) or 'none'}) or a Hub id like 'user/repo'"
    )
    if not isinstance(source, str | Path):
        raise TypeError(f"{forms}; got {type(source).__name__}")
    folder = Path(source)
    if folder.is_dir():
        missing = [name for name in (hub.CONFIG, hub.WEIGHTS) if not (folder / name).is_file()]
        if missing:
            raise FileNotFoundError(f"folder {str(folder)!r} has no {' and no '.join(missing)}: {forms}")
        return folder, None
    if str(source) in bundled_names():
        return BUNDLED / str(source), None
    if isinstance(source, str) and hub.is_repo_id(source):
        return hub.pull(source, revision=revision, token=token)
    raise FileNotFoundError(f"unknown source {str(source)!r}: {forms}")


def read_config(path: Path) -> GeneratorConfig:
    """The config in the JSON file ``path``; ``ValueError`` says what is wrong with it."""
    try:
        if path.stat().st_size > 4_000_000:
            raise ValueError(f"{path} is over 4 MB: not a generator config")
        return GeneratorConfig.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error


def read_weights(path: Path, config: GeneratorConfig, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the safetensors file ``path``, which must be exactly those ``expected`` (on the meta device).

    Raises:
        ValueError: The file is truncated, a tensor is missing, unexpected, of another shape or kind, or not
            finite, or the config asks for too much.
    """
    total = sum(t.numel() for name, t in expected.items() if name != "codes")
    if total > MAX_PARAMETERS:
        raise ValueError(f"{path.with_name(hub.CONFIG)} asks for {total} parameters; the limit is {MAX_PARAMETERS}")
    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
            problems = [f"no tensor {n!r}" for n in expected if n not in names]
            problems += [f"unexpected tensor {n!r}" for n in names if n not in expected]
            for name in names & set(expected):
                shape, wanted = list(file.get_slice(name).get_shape()), list(expected[name].shape)
                if shape != wanted:
                    problems.append(f"tensor {name!r} has shape {shape}, the config asks for {wanted}")
            if problems:
                raise ValueError(f"{path} does not fit its config: {'; '.join(sorted(problems)[:5])}")
            state = {name: file.get_tensor(name) for name in expected}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a readable safetensors file (truncated?): {error}") from error
    for name, tensor in state.items():
        if tensor.is_floating_point() != expected[name].is_floating_point() or (
            not tensor.is_floating_point() and tensor.dtype != expected[name].dtype
        ):
            raise ValueError(f"{path}: tensor {name!r} is {tensor.dtype}, expected {expected[name].dtype}")
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ValueError(f"{path} holds NaN or infinite weights")
    if config.source == "codes":
        counts = state["counts"]
        if int(counts.min()) < 1 or int(counts.sum()) != config.codes:
            raise ValueError(f"{path}: 'counts' must be positive and sum to {config.codes}, the number of codes")
    return state
