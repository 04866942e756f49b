"""``dim-data cache``: the image sets that are kept because they are too large for memory."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from dim_data.cli.streams import say
from dim_data.images import CachedImages, cache_folder, cached_images, remove_cached

__all__ = ["run_cache"]


def run_cache(args: argparse.Namespace) -> int:
    """List the sets in the cache folder, or remove some of them or all."""
    found = cached_images()
    if args.remove_all or args.remove:
        chosen = found if args.remove_all else [one for name in args.remove for one in _called(name, found)]
        for one in dict.fromkeys(chosen):
            remove_cached(one.folder)
            if not args.json:
                say(f"removed {_line(one)}")
        found = [one for one in found if one not in chosen]
        if not args.json:
            return 0
    if args.json:
        say(json.dumps([{**asdict(one), "folder": str(one.folder)} for one in found], indent=2))
        return 0
    for one in found:
        say(_line(one))
    total = sum(one.bytes for one in found)
    say(f"{len(found)} image set{'s' * (len(found) != 1)}, {total / 1e9:.2f} GB, in {cache_folder()}")
    return 0


def _called(name: str, found: list[CachedImages]) -> list[CachedImages]:
    chosen = [one for one in found if name in (one.name, one.folder.name)]
    if not chosen:
        names = ", ".join(sorted({one.name for one in found})) or "none"
        raise ValueError(f"no image set {name!r} in {cache_folder()}, which has {names}")
    return chosen


def _line(one: CachedImages) -> str:
    state = "" if one.finished else " so far, unfinished"
    return f"{one.folder.name}  {one.name!r}: {one.count} images{state}, {one.bytes / 1e9:.2f} GB, of {one.source!r}"
