"""The output folder of a run: which run it holds, and that no other touches it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from dim_data.format import BEFORE, RESULT, RUN, SAMPLES, check_writable, write_json
from dim_data.images import KNOWN_SPECS, held
from dim_data.protocol import differences

__all__ = ["CHECKPOINT", "CURVES", "METRICS", "check_outside", "claimed", "open_run", "write_run"]

CHECKPOINT, METRICS = "checkpoint.pt", "metrics.jsonl"
CURVES = "curves.png"
VERSION = 4
"""Of what :data:`RUN` and :data:`CHECKPOINT` hold: runs of another are not resumed."""


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Make the folder ``out`` and hold it: two runs in one would overwrite each other's checkpoints.

    Raises:
        FileExistsError: A run is at work in ``out``.
        OSError: It cannot be made or read.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(held(out, wait=False))
            next(out.iterdir(), None)
        except BlockingIOError as error:
            raise FileExistsError(
                f"another process is at work in {out}: wait for it or stop it, or choose another folder"
            ) from error
        except OSError as error:
            raise OSError(f"cannot use {out} as the output folder: {error}; choose another") from error
        yield


def check_outside(out: Path, data: Any) -> None:
    """Refuse to put a run among the images, as one of which its pictures would be read.

    Args:
        out: The folder of the run.
        data: What :func:`~dim_data.images.load_real` is to read.

    Raises:
        ValueError: ``data`` is a folder, and ``out`` lies in it.
    """
    if not isinstance(data, str | Path) or str(data) in KNOWN_SPECS:
        return
    images, place = Path(data).expanduser().resolve(), out.expanduser().resolve()
    if images.is_dir() and images in (place, *place.parents):
        raise ValueError(f"{out} lies in {data}, where it would be read as a class of images: choose another folder")


def open_run(out: Path, identity: dict[str, Any], resume: bool, overwrite: bool) -> bool:
    """Make the claimed folder ``out`` ready for this run: empty, or holding this very run.

    Args:
        out: The folder.
        identity: What the run is, in plain values.
        resume: Whether a run there may go on.
        overwrite: Whether a run there may be lost.

    Returns:
        Whether the run is finished.

    Raises:
        FileExistsError: ``out`` holds something else.
        OSError: It cannot be written to.
    """
    held = [path for path in out.iterdir() if not re.fullmatch(r"\..*\.tmp", path.name)]  # less a kill's leavings
    finished = False
    if held and not (out / RUN).is_file():
        raise FileExistsError(f"{out} is not empty and holds no run of distill(): choose another folder")
    if held and overwrite:
        for name in (RESULT, BEFORE):
            shutil.rmtree(out / name, ignore_errors=True)
        for name in (CHECKPOINT, METRICS, SAMPLES, CURVES):
            (out / name).unlink(missing_ok=True)
    elif held:
        found = _read_run(out / RUN)
        finished = found.get("finished") is True
        if problem := _problem(found, identity, resume):
            images = found.get("data") != identity["data"] and found.get("config") == identity["config"]
            hint = ". Images that a random transform makes are others each time: leave it out" if images else ""
            raise FileExistsError(
                f"{out} holds {problem}: choose another folder, or pass overwrite=True (--overwrite) to begin "
                f"anew{hint}"
            )
        if finished and not (out / RESULT).exists():
            raise FileExistsError(
                f"{out} holds a finished run, and its {RESULT}/ is gone: put it back, or pass overwrite=True "
                f"(--overwrite) to begin anew"
            )
    if not finished:
        try:
            for name in (RESULT, BEFORE):
                check_writable(out / name, folder=True)
            write_run(out, identity)
        except OSError as error:
            raise OSError(f"cannot use {out} as the output folder: {error}; choose another") from error
    return finished


def write_run(out: Path, identity: Mapping[str, Any], finished: bool = False) -> None:
    """Note in ``out`` which run it holds, and whether that is finished."""
    write_json(out / RUN, {"version": VERSION, "finished": finished, **identity})


def _read_run(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        return {}


def _shared(config: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """``config`` without the stages that ``other`` has not: where they are read, it differs in more than those."""
    return {name: value for name, value in config.items() if name in other or not isinstance(value, dict)}


def _problem(found: dict[str, Any], identity: dict[str, Any], resume: bool) -> str:
    """Why the run that was found is not the one to go on with, or nothing."""
    if not found:
        return f"a run whose {RUN} is damaged"
    if found.get("version") != VERSION:
        return (
            f"a run that another version of dim_data began: only that version can go on with it (its {RUN} has the "
            f"version {found.get('version', 1)!r}, this one writes {VERSION})"
        )
    there, here = {name: found.get(name) for name in identity}, dict(identity)
    if isinstance(config := there.get("config"), dict):
        there["config"], here["config"] = _shared(config, here["config"]), _shared(here["config"], config)
    if changed := differences(there, here):
        return f"another run, which differs in {changed}"
    return "" if resume else "this run already"
