"""Progress on a terminal, and Ctrl-C that saves."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from dim_data.cli.streams import complain
from dim_data.distillation import StageStep
from dim_data.protocol import ClassifierStep, StoppedError

__all__ = ["ReadBar", "SeedBar", "SignalledError", "StageBars", "interruptible"]


class SignalledError(StoppedError):
    """Stopped by a signal; ``code`` is the exit code that says so."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


class ReadBar:
    """A progress bar over the reading of images, on a terminal only."""

    def __init__(self) -> None:
        self.bar: tqdm[Any] = tqdm(disable=None, unit="image", desc="reading", leave=False, delay=1)

    def advance(self, done: int, count: int | None) -> None:
        """Show how many are read."""
        if self.bar.total is None and count is not None:
            self.bar.reset(count)
            self.bar.initial = done  # those from before say nothing about the speed
        self.bar.update(done - self.bar.n)

    def __enter__(self) -> ReadBar:
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()


class SeedBar:
    """A progress bar over the training of each seed, on a terminal only."""

    def __init__(self) -> None:
        self.bar: tqdm[Any] = tqdm(disable=None, unit="step", leave=False)
        self.seed: int | None = None

    def advance(self, record: ClassifierStep) -> None:
        """Show a step."""
        if record.step == 1 or record.seed != self.seed:  # a training that goes on begins at any step
            self.seed = record.seed
            self.bar.reset(record.steps)
            self.bar.set_description(f"seed {record.seed}")
            self.bar.update(record.step - 1)
        self.bar.update()
        if record.step % 20 == 0:
            self.bar.set_postfix(loss=f"{record.loss:.3f}", refresh=False)

    def __enter__(self) -> SeedBar:
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()


class StageBars:
    """One progress bar for each stage, on a terminal only."""

    def __init__(self) -> None:
        self.bar: tqdm[Any] | None = None
        self.stage = ""

    def advance(self, record: StageStep) -> None:
        """Show a step."""
        if self.bar is None or record.stage != self.stage:
            self._close()
            self.stage = record.stage
            self.bar = tqdm(
                total=record.steps, initial=record.step - 1, desc=record.stage, unit="step", disable=None, leave=True
            )
        self.bar.update()
        if record.step % 20 == 0:
            self.bar.set_postfix({k: f"{v:.3f}" for k, v in record.losses.items()}, refresh=False)

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()

    def __enter__(self) -> StageBars:
        return self

    def __exit__(self, *error: object) -> None:
        self._close()


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Let the first Ctrl-C (or SIGTERM) ask for a clean stop; the second one is as usual.

    Yields what to pass as ``should_stop``.

    Raises:
        SignalledError: What was to stop did, and is saved.
    """
    asked: list[int] = []

    def note(number: int, _: Any) -> None:
        asked.append(number)
        for again in before:
            signal.signal(again, before[again])
        complain("finishing this step and saving; once more to stop at once")

    main = threading.current_thread() is threading.main_thread()  # no other hears of signals
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM) if main}
    try:
        yield lambda: bool(asked)
    except StoppedError as error:
        if not asked:
            raise
        raise SignalledError(str(error), 128 + asked[0]) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
