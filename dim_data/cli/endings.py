"""How a command ends: its exit code, and a sentence where it could not be done.

0 done; 1 it could not be done, and the last line on stderr says why; 2 wrong usage; 3 stopped by its time budget, and
the same command resumes it; 130 stopped by Ctrl-C and 143 by SIGTERM, likewise where a run is kept; 141 whoever read
the output has left.
"""

from __future__ import annotations

from collections.abc import Callable

from dim_data.cli.progress import SignalledError
from dim_data.cli.streams import ReaderGoneError, complain
from dim_data.protocol import StoppedError

__all__ = ["ended"]


def ended(command: Callable[[], int]) -> int:
    """Run ``command`` to whatever end; the exit code that says which."""
    try:
        return command()
    except ReaderGoneError:
        return 141  # as a shell says of others, which the signal ends
    except StoppedError as error:
        complain(error)
        return error.code if isinstance(error, SignalledError) else 3
    except KeyboardInterrupt:
        complain("stopped by Ctrl-C")
        return 130
    except MemoryError as error:  # python says nothing with it
        complain(f"not enough memory{f': {error}' if str(error) else ''}")
    except (OSError, ValueError, TypeError, RuntimeError, ImportError) as error:
        complain(error)
    return 1
