"""Standard output and error as they are found: closed, full, or unable to write a letter."""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

__all__ = ["ReaderGoneError", "complain", "say", "usable_streams", "written"]


class ReaderGoneError(Exception):
    """Whoever read the output has left: ``dim-data info cifar10 | head -1``."""


def complain(text: object) -> None:
    """Say it on standard error, if anybody listens there."""
    with suppress(OSError):
        print(f"dim-data: {text}", file=sys.stderr, flush=True)


@contextmanager
def usable_streams(silent: bool = False) -> Iterator[None]:
    r"""Within, a stream that is closed swallows all, and what a terminal cannot write comes escaped: ``\xb1``.

    Warnings come as a line of their own.

    Args:
        silent: Swallow all, on every stream: another rank speaks.
    """
    with ExitStack() as stack:
        for name in ("stdout", "stderr"):
            stream: Any = getattr(sys, name)
            if stream is None or silent:
                nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
                setattr(sys, name, nowhere)
                stack.callback(setattr, sys, name, stream)
            elif name == "stdout" and isinstance(stream, io.TextIOWrapper):  # as the other does of itself
                stack.callback(stream.reconfigure, errors=stream.errors)
                stream.reconfigure(errors="backslashreplace")
            else:
                stack.callback(_flush, stream)
        stack.enter_context(warnings.catch_warnings())
        warnings.showwarning = lambda message, *_, **__: complain(f"warning: {message}")
        yield


def _flush(stream: Any) -> None:
    """Flush ``stream``; if that fails, let what it holds go, or python would try again at its end and complain."""
    try:
        stream.flush()
    except OSError:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextmanager
def written() -> Iterator[None]:
    """Say of standard output what its errors mean, once: what it still holds is let go."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OSError as error:
        _flush(sys.stdout)
        if isinstance(error, BrokenPipeError):
            raise ReaderGoneError from None
        raise OSError(f"could not write the output: {error}") from error


def say(text: object) -> None:
    """Print it on standard output, at once.

    Raises:
        ReaderGoneError: Whoever read the output has left.
        OSError: It cannot be written.
    """
    with written():
        print(text)
