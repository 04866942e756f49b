"""Work in several sittings: files that keep what is done of it, one for each rank that has a part in it."""

from __future__ import annotations

import glob
import re
import time
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from dim_data.format import check_writable, write_atomically
from dim_data.generator import Generator
from dim_data.images import ImageSpec, LabelledImages, digest, torch_defaults, warn_caller
from dim_data.protocol.states import LoopState, StoppedError, differences

__all__ = ["Checkpointer", "seconds_kept"]


class Checkpointer:
    """What is done of an evaluation, or of another training: the accuracies so far, and the trainings under way.

    Each rank writes a file of its own, and reads those of all: any number of ranks may go on.

    Args:
        path: The file of the first rank; those of others have their number behind it. If there is one, the work
            goes on from there. ``None`` keeps nothing.
        arguments: What the work is: a file of other work is refused. Those of an evaluation name its ``seeds``.
        seconds: Between two writings of the file.
        rank: Which of them this is.

    Attributes:
        identity: What the work is, in plain values.
        accuracies: Those that are known, by the place of their seed.

    Raises:
        OSError: The file could not be written.
        ValueError: One cannot be read, or is of other work.
    """

    def __init__(self, path: str | Path | None, arguments: Mapping[str, Any], seconds: float, rank: int = 0) -> None:
        self.first = None if path is None else Path(path).expanduser().resolve()  # what a link leads to, not the link
        self.path = self.first if not self.first or not rank else self.first.with_name(f"{self.first.name}.{rank}")
        self.seconds, self._rank, self._seeds = seconds, rank, len(arguments.get("seeds", (0,)))
        self.accuracies: dict[int, float] = {}
        self.before, self.started = 0.0, time.monotonic()
        self.saved_at = self.started
        self._restored: dict[int, dict[str, Any]] = {}
        self._whose: dict[int, int] = {}
        self._place = 0
        self._state: LoopState | None = None  # of the training under way
        self._arguments = arguments
        if self.path is not None:
            check_writable(self.path)
            for file, owner in self._files():
                self._load(file, owner)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What the work is, in plain values."""
        return {name: _said(value) for name, value in self._arguments.items()}

    def _files(self) -> list[tuple[Path, int]]:
        """The files that are there, with the ranks that wrote them."""
        if self.first is None:
            return []
        others = [Path(name) for name in glob.glob(f"{glob.escape(str(self.first))}.*")]
        found = [(path, int(path.suffix[1:])) for path in others if re.fullmatch(r"\.[1-9]\d*", path.suffix)]
        return [(self.first, 0)] * self.first.exists() + sorted(found, key=lambda one: one[1])

    def unfinished(self, ranks: int) -> list[int]:
        """Places of the seeds that are to be trained: this rank's own unfinished ones first, other ranks' last.

        Args:
            ranks: How many there are now.
        """

        def turn(place: int) -> int:
            owner = self._whose.get(place, ranks)
            return 0 if owner == self._rank else 1 + (owner < ranks)

        return sorted((place for place in range(self._seeds) if place not in self.accuracies), key=turn)

    @property
    def elapsed(self) -> float:
        """Seconds of work, over all calls."""
        return self.before + time.monotonic() - self.started

    def select(self, place: int) -> None:
        """Say which seed is trained next, by its place."""
        self._place, self._state = place, None

    def begin(self, state: LoopState) -> None:
        """Bring the state of a new training to where a file left it, if it was under way there."""
        self._state = state
        if self._place not in self._restored:
            return
        try:
            state.load_state_dict(self._restored[self._place])
        except Exception as error:
            raise _unreadable(self.path, error) from error
        del self._restored[self._place]

    def step(self, state: LoopState) -> None:
        """Write the file if it is time to."""
        if self.path is not None and time.monotonic() - self.saved_at > self.seconds:
            self._save(self.path, state)

    def save(self) -> None:
        """Write the file now, if there is to be one."""
        if self.path is not None:
            self._save(self.path, self._state)

    def stopped(self, place: str) -> StoppedError:
        """Write the file now, and say so; ``place`` is where the training under way has come to."""
        if self.path is None:
            return StoppedError(f"stopped in {place}; nothing of it is kept, since no checkpoint was named")
        self.save()
        return StoppedError(f"stopped in {place}; saved in {self.path}: the same call resumes it")

    def close(self) -> None:
        """Remove the files: all is done."""
        for path, _ in self._files():
            try:
                path.unlink(missing_ok=True)
            except OSError as error:  # the result is worth more
                warn_caller(f"{path} is not needed any more, and could not be removed: {error}")

    def _save(self, path: Path, state: LoopState | None) -> None:
        accuracies = [self.accuracies.get(place) for place in range(self._seeds)]
        content = {"identity": self.identity, "accuracies": accuracies, "seconds": self.elapsed, "place": self._place}
        content["state"] = None if state is None else state.state_dict()
        try:
            write_atomically(path, lambda file: torch.save(content, file))
        except OSError as error:
            raise OSError(f"could not write {path}: {error.__cause__}. What was there before is intact") from error
        self.saved_at = time.monotonic()

    @torch_defaults()
    def _load(self, path: Path, owner: int) -> None:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            found, known, state = content["identity"], content["accuracies"], content["state"]
            place = content["place"]
            self.before = max(self.before, content["seconds"])
            self.accuracies |= {at: value for at, value in enumerate(known) if value is not None}
            if state is not None and state["step"] >= self._restored.get(place, state)["step"]:
                self._restored[place], self._whose[place] = state, owner
            differing = differences(found, self.identity)
        except Exception as error:  # a damaged file makes torch raise a dozen kinds
            raise _unreadable(path, error) from error
        if differing:
            raise ValueError(
                f"{path} is of other work: it differs in {differing}. Finish that one, remove the file, or name another"
            )


def seconds_kept(path: Path) -> float:
    """Seconds of work that went into what the file ``path`` keeps, over all calls."""
    seconds: float = torch.load(Path(path).expanduser(), map_location="cpu", weights_only=True)["seconds"]
    return seconds


def _unreadable(path: Path | None, error: Exception) -> ValueError:
    return ValueError(
        f"{path} cannot be resumed: it is damaged or of another version ({type(error).__name__}). "
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
