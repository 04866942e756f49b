"""A run under way: where it stands, its checkpoint and its log; nothing of it is lost to a kill."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from dim_data.distillation.folders import CHECKPOINT, METRICS
from dim_data.distillation.loops import StageStep
from dim_data.distillation.presets import DistillConfig
from dim_data.format import BEFORE, write_atomically
from dim_data.images import torch_defaults
from dim_data.networks import ALONE, Ranks
from dim_data.protocol import LoopState, StoppedError

__all__ = ["DivergenceError", "Run", "call_to_resume"]


class DivergenceError(RuntimeError):
    """A loss became NaN or infinite; the last good checkpoint is kept."""


def call_to_resume(resume: bool, overwrite: bool) -> str:
    """The call that goes on with a run, told from the one that began it: what would refuse or delete it is left out."""
    said = ["overwrite=True (--overwrite)"] * overwrite + ["resume=False (--no-resume)"] * (not resume)
    return f"the same call{' without ' * bool(said)}{' and '.join(said)}"


class Run:
    """One output folder: where the run stands, its checkpoint and its log.

    All of the ``ranks`` know where it stands, and the first one writes. ``again`` is the call that goes on with it.
    """

    def __init__(
        self,
        out: Path,
        config: DistillConfig,
        checkpoint_seconds: float,
        deadline: float,
        ranks: Ranks = ALONE,
        again: str = "the same call",
    ) -> None:
        self.out, self.config, self.ranks, self.again = out, config, ranks, again
        self.checkpoint_seconds, self.deadline = checkpoint_seconds, deadline
        self.done: list[str] = []
        self.states: dict[str, LoopState] = {}
        self.restored: dict[str, Any] = {}
        self.best: dict[str, Any] | None = None
        self.scores: list[dict[str, float]] = []
        self.waiting: list[dict[str, Any]] = []
        self.seconds, self.started = 0.0, time.monotonic()
        self.saved_at = self.started
        self.place = "the checkpoint"

    @property
    def elapsed(self) -> float:
        """Seconds of work, over all calls."""
        return self.seconds + time.monotonic() - self.started

    def add(self, name: str, state: LoopState) -> LoopState:
        """Track a state in checkpoints, restoring it if the checkpoint had it."""
        if name in self.restored:
            try:
                state.load_state_dict(self.restored.pop(name))
            except Exception as error:
                raise self._unreadable(error) from error
        self.states[name] = state
        return state

    def check(self) -> None:
        """Raise if a weight is no longer finite."""
        for state in self.states.values():
            for name, part in state.parts.items():
                weights = part.parameters() if isinstance(part, torch.nn.Module) else ()
                if not all(p.isfinite().all() for p in weights):
                    raise DivergenceError(f"{name} has NaN or infinite weights after {self.place}; {self._kept()}")

    def save(self) -> None:
        """Write the checkpoint, unless a weight is no longer finite."""
        for state in self.states.values():
            if state.collect is not None:
                state.collect()
        self.check()
        self.saved_at = time.monotonic()
        if not self.ranks.first:
            return
        metrics = self.out / METRICS
        content = {
            "done": self.done,
            "states": {name: state.state_dict() for name, state in self.states.items()},
            "best": self.best,
            "scores": self.scores,
            "waiting": self.waiting,
            "seconds": self.elapsed,
            "logged": metrics.stat().st_size if metrics.exists() else 0,
        }
        with self.writing(CHECKPOINT):
            write_atomically(self.out / CHECKPOINT, lambda file: torch.save(content, file))

    def forget(self) -> None:
        """Shrink the checkpoint of a run that is finished."""
        self.states, self.best = {}, None
        with contextlib.suppress(OSError):
            self.save()

    @torch_defaults()
    def load(self) -> None:
        """Read the checkpoint, if there is one, cut the log back to it, and remove what a kill left half-written."""
        path = self.out / CHECKPOINT
        for leftover in self.out.rglob(".*.tmp") if self.ranks.first else ():
            leftover.unlink()
        if not path.exists():
            if (self.out / BEFORE).exists():
                raise FileNotFoundError(
                    f"{path} is gone, and what was done with it: put back a copy, or pass overwrite=True (--overwrite) "
                    f"to begin anew"
                )
            if self.ranks.first:
                (self.out / METRICS).unlink(missing_ok=True)
            return
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            self.done, self.restored = content["done"], content["states"]
            self.best, self.scores, self.seconds = content["best"], content["scores"], content["seconds"]
            self.waiting = content["waiting"]
            logged: int = content["logged"]
        except Exception as error:  # a damaged file makes torch raise a dozen kinds
            raise self._unreadable(error) from error
        metrics = self.out / METRICS
        if metrics.exists() and self.ranks.first:
            os.truncate(metrics, min(logged, metrics.stat().st_size))

    def log(self, record: Mapping[str, Any]) -> None:
        """Append one line to the log."""
        if not self.ranks.first:
            return
        line = json.dumps({**record, "seconds": round(self.elapsed, 1)}) + "\n"
        with self.writing(METRICS), (self.out / METRICS).open("a", encoding="utf-8") as file:
            file.write(line)

    def drive(
        self,
        loop: Iterable[StageStep],
        on_step: Callable[[StageStep], object] | None,
        should_stop: Callable[[], bool] | None,
        at: Callable[[int], None] | None = None,
    ) -> None:
        """Run a loop to its end: log, report, checkpoint now and then, stop when asked."""
        for record in loop:
            self.place = f"stage {record.stage!r}, step {record.step} of {record.steps}"
            bad = [name for name, value in record.losses.items() if not math.isfinite(value)]
            if bad:
                raise DivergenceError(
                    f"stage {record.stage!r} diverged at step {record.step} of {record.steps}: "
                    f"{', '.join(bad)} is not finite; {self._kept()}. "
                    f"A smaller learning rate, in another folder, may help"
                )
            if record.step % 10 == 0 or record.step == record.steps:
                self.log({"stage": record.stage, "step": record.step, **record.losses})
            if at is not None:
                at(record.step)
            if on_step is not None:
                on_step(record)
            if reason := self._stops(should_stop):
                self.save()
                self.ranks.barrier()  # whoever ends first may end the others
                raise StoppedError(
                    f"{reason} in stage {record.stage!r}, step {record.step} of {record.steps}; saved in {self.out}: "
                    f"{self.again} resumes it"
                )
        self.check()

    def _stops(self, should_stop: Callable[[], bool] | None) -> str:
        """Why one of the ranks is to stop, if one is; if none, save where it is time to."""
        now = time.monotonic()
        late = now > self.deadline
        asked = not late and should_stop is not None and should_stop()
        due = self.ranks.first and now - self.saved_at > self.checkpoint_seconds
        any_late, any_asked, saving = self.ranks.add("step", late, asked, due)
        if saving and not (any_late or any_asked):
            self.save()
        return "out of time" if any_late else "stopped" if any_asked else ""

    def _kept(self) -> str:
        path = self.out / CHECKPOINT
        if not path.exists():
            return "no checkpoint had been written yet"
        return f"the last good checkpoint is {path}"

    @contextmanager
    def writing(self, name: str) -> Iterator[None]:
        """Say of a write that fails what is lost, and what to do."""
        try:
            yield
        except OSError as error:
            kept = (self.out / CHECKPOINT).exists()
            raise OSError(
                f"could not write {self.out / name}: {error.__cause__ or error}. "
                f"{'The checkpoint before it is intact' if kept else 'No checkpoint had been written before'}: "
                f"free some space and run {self.again} again"
            ) from error

    def _unreadable(self, error: Exception) -> ValueError:
        return ValueError(
            f"{self.out / CHECKPOINT} cannot be resumed: it is damaged or of another version "
            f"({type(error).__name__}). Put back a copy, or pass overwrite=True (--overwrite) to begin anew"
        )
