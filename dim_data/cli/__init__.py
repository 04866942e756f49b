"""The command line ``dim-data``.

* ``commands``: one function for each command; a new command goes there. Begin here.
* ``caching``: the command ``cache``. ``shrinking``: the command ``shrink``.
* ``arguments``: what each command takes; ``values``: what its text stands for; ``settings``: what ``--set`` says.
* ``testing``: the real images to test on. ``progress``: bars, and what Ctrl-C does.
* ``endings``: exit codes. ``streams``: terminals and pipes, as they are found.

The top floor: imports all others.
"""

from __future__ import annotations

try:
    from dim_data.cli.commands import main
except KeyboardInterrupt:  # torch takes seconds to load
    raise SystemExit(130) from None

__all__ = ["main"]
