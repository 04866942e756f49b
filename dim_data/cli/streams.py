"""Standard output and error as they are found: closed, full, or unable to write a letter."""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

__all__ = ["READER_GONE", "complain", "flushed", "usable_streams"]

READER_GONE = 141
"""What a shell says of a command whose reader has left: ``dim-data info cifar10 | head -1``."""


def complain(text: object) -> None:
    """Say it on standard error, if anybody listens there."""
    with suppress(OSError):
        print(f"dim-data: {text}", file=sys.stderr, flush=True)


@contextmanager
def usable_streams() -> Iterator[None]:
    r"""Within, a stream that is closed swallows all, and what a terminal cannot write comes escaped: ``\xb1``.

    Warnings come as a line of their own.
    """
    with ExitStack() as stack:
        for name in ("stdout", "stderr"):
            stream: Any = getattr(sys, name)
            if stream is None:
                nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
                setattr(sys, name, nowhere)
                stack.callback(setattr, sys, name, None)
            elif isinstance(stream, io.TextIOWrapper):
                stack.callback(stream.reconfigure, errors=stream.errors)
                stream.reconfigure(errors="backslashreplace")
        stack.enter_context(warnings.catch_warnings())
        warnings.showwarning = lambda message, *_, **__: complain(f"warning: {message}")
        yield


def flushed(code: int) -> int:
    """The exit code of a command that would end with ``code``, once standard output has taken what it was given."""
    try:
        sys.stdout.flush()
    except OSError as error:
        with suppress(OSError):  # or python would say it once more at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return READER_GONE
        complain(f"could not write the output: {error}")
        return 1
    return code
