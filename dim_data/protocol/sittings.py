"""Work in several sittings: a file that keeps what is done of it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch

from dim_data.format import check_writable, write_atomically
from dim_data.generator import Generator
from dim_data.images import ImageSpec, LabelledImages, digest, torch_defaults
from dim_data.protocol.states import LoopState, StoppedError, differences

__all__ = ["Sittings"]


class Sittings:
    """What is done of an evaluation, or of another training: the accuracies so far, and the training under way.

    Args:
        path: The file. If it exists, the work goes on from there. ``None`` keeps nothing.
        arguments: What the work is: a file of other work is refused.
        seconds: Between two writings of the file.

    Raises:
        OSError: The file could not be written.
        ValueError: It cannot be read, or is of other work.
    """

    def __init__(self, path: str | Path | None, arguments: Mapping[str, Any], seconds: float) -> None:
        self.path, self.seconds = None if path is None else Path(path), seconds
        self.accuracies: list[float] = []
        self.before, self.started = 0.0, time.monotonic()
        self.saved_at = self.started
        self._restored: dict[str, Any] = {}
        if self.path is not None:
            self._identity = {name: _said(value) for name, value in arguments.items()}
            check_writable(self.path)
            if self.path.exists():
                self._load(self.path)

    @property
    def elapsed(self) -> float:
        """Seconds of work, over all sittings."""
        return self.before + time.monotonic() - self.started

    def begin(self, state: LoopState) -> None:
        """Bring the state of a new training to where the file left it, if it was under way there."""
        self._state = state
        if not self._restored:
            return
        try:
            state.load_state_dict(self._restored)
        except Exception as error:
            raise self._unreadable(error) from error
        self._restored = {}

    def step(self, state: LoopState) -> None:
        """Write the file if it is time to."""
        if self.path is not None and time.monotonic() - self.saved_at > self.seconds:
            self._save(self.path, state)

    def stopped(self, place: str) -> StoppedError:
        """Write the file now, and say so; ``place`` is where the training under way has come to."""
        if self.path is None:
            return StoppedError(f"stopped in {place}; nothing of it is kept, since no checkpoint was named")
        self._save(self.path, self._state)
        return StoppedError(f"stopped in {place}; saved in {self.path}: the same call resumes it")

    def close(self) -> None:
        """Remove the file: all is done."""
        try:
            if self.path is not None:
                self.path.unlink(missing_ok=True)
        except OSError as error:  # the result is worth more
            warnings.warn(f"{self.path} is not needed any more, and could not be removed: {error}", stacklevel=3)

    def _save(self, path: Path, state: LoopState) -> None:
        content = {"identity": self._identity, "accuracies": self.accuracies, "seconds": self.elapsed}
        content["state"] = state.state_dict()
        try:
            write_atomically(path, lambda file: torch.save(content, file))
        except OSError as error:
            raise OSError(f"could not write {path}: {error.__cause__}. What was there before is intact") from error
        self.saved_at = time.monotonic()

    @torch_defaults()
    def _load(self, path: Path) -> None:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            found, self.accuracies, self.before = content["identity"], content["accuracies"], content["seconds"]
            self._restored = content["state"]
            differing = differences({name: found[name] for name in self._identity}, self._identity)
        except Exception as error:  # a damaged file makes torch raise a dozen kinds
            raise self._unreadable(error) from error
        if differing:
            raise ValueError(
                f"{path} is of other work: it differs in {differing}. Finish that one, remove the file, or name another"
            )

    def _unreadable(self, error: Exception) -> ValueError:
        return ValueError(
            f"{self.path} cannot be resumed: it is damaged or of another version ({type(error).__name__}). "
            f"Put back a copy, or remove it to begin anew"
        )


def _said(argument: Any) -> Any:
    """What tells an argument from another, in plain values: of images and generators a digest of their tensors."""
    if isinstance(argument, Generator):
        return {"digest": digest(argument.state_dict().values()), **_normalisation(argument.spec)}
    if isinstance(argument, LabelledImages):
        return {"digest": argument.fingerprint(), **_normalisation(argument.spec)}
    if is_dataclass(argument):
        return {field.name: _said(getattr(argument, field.name)) for field in fields(argument)}
    return list(argument) if isinstance(argument, tuple) else argument


def _normalisation(spec: ImageSpec) -> dict[str, Any]:
    return {"mean": list(spec.mean), "std": list(spec.std)}
