"""What ranks tell each other without waiting: notes in the store of the process group, which nobody has to answer.

So a rank may do alone what others have no part in, as where a script lets its first rank measure.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, ClassVar

import torch.distributed as dist

from dim_data.networks.meeting import RankError, connected
from dim_data.networks.ranks import Ranks

__all__ = ["WorkQueue", "compare_notes"]

PATIENCE = 5.0
"""Seconds that a rank waits for the others to come to the same queue, before it begins without them."""
BEAT, SILENCE, POLL = 5.0, 600.0, 0.05
"""Seconds between two signs of life, after which there should have been one, and between two looks for them."""


def compare_notes(
    topic: str, settings: Mapping[str, Any], rank: int, size: int, patience: float
) -> tuple[int, dict[str, Any]] | None:
    """Leave a note of what this rank begins, and see whether others begin the same.

    Args:
        topic: What the notes are about.
        settings: JSON-ready, equal on all ranks where all is well.
        rank: Of this process in the default group.
        size: Of the group.
        patience: Seconds to wait for others.

    Returns:
        A rank that has begun something else, and what, unless it is only behind; else ``None``.
    """
    store = dist.distributed_c10d._get_default_store()
    mine = json.dumps(settings, sort_keys=True)

    def has_begun(rank: int, what: str = "") -> bool:
        return store.check([f"{topic}/{rank}/{what}"])

    store.set(f"{topic}/{rank}/{mine}", "begun")
    store.set(f"{topic}/{rank}/", mine)
    waiting = set(range(size)) - {rank}
    deadline = time.monotonic() + patience
    while waiting := {other for other in waiting if not has_begun(other, mine)}:
        if time.monotonic() > deadline:
            break
        time.sleep(0.01)
    for other in sorted(filter(has_begun, waiting)):
        theirs = store.get(f"{topic}/{other}/").decode()
        if not has_begun(rank, theirs):  # otherwise that rank is only behind
            return other, json.loads(theirs)
    return None


class WorkQueue:
    """Work in pieces, each of which one rank takes; those that come to it share it, and a lone rank does it all.

    Args:
        ranks: Who may come.
        topic: What it is called.
        settings: What it is, JSON-ready: ranks with the same settings share it.

    Attributes:
        other: A rank that began something else at the same time, and what.
    """

    _calls: ClassVar[Counter[str]] = Counter()

    def __init__(self, ranks: Ranks, topic: str, settings: Mapping[str, Any]) -> None:
        self._rank = ranks.rank
        self.other: tuple[int, dict[str, Any]] | None = None
        self._store: Any = None
        self._done: dict[str, Any] = {}
        self._beat_at = 0.0
        if ranks.size == 1:
            return
        name = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
        self._calls[name] += 1
        facts = {**settings, "call": self._calls[name]}
        self._store = dist.distributed_c10d._get_default_store()
        self._key = f"dim_data.{topic}/{name}/{self._calls[name]}"
        other = compare_notes(f"dim_data.{topic}", facts, ranks.rank, ranks.size, PATIENCE)
        if other is not None:
            self.other = other[0], {name: value for name, value in other[1].items() if name != "call"}

    def take(self, piece: str) -> bool:
        """Whether this rank is to do the piece: the first that asks is."""
        if self._store is None:
            return True
        if self._store.add(f"{self._key}/{piece}/taken", 1) > 1:
            return False
        self._store.set(f"{self._key}/{piece}/by", str(self._rank))
        self._beat_at = 0.0
        self.beat()
        return True

    def beat(self) -> None:
        """Leave a sign of life, now and then.

        Raises:
            RankError: Another rank has failed at its piece.
        """
        if self._store is None or time.monotonic() - self._beat_at < BEAT:
            return
        self._beat_at = time.monotonic()
        with connected():
            self._store.set(f"{self._key}/beat/{self._rank}", str(self._beat_at))
            self._check()

    def report(self, piece: str, result: float) -> None:
        """Say what came of a piece."""
        self._done[piece] = result
        if self._store is not None:
            self._store.set(f"{self._key}/{piece}/done", json.dumps(result))

    def fail(self, error: BaseException) -> None:
        """Say that this rank ends without having done its piece."""
        if self._store is not None:
            self._store.set(f"{self._key}/failed", f"rank {self._rank}: {type(error).__name__}: {error}")

    def _check(self) -> None:
        if self._store.check([f"{self._key}/failed"]):
            raise RankError(self._store.get(f"{self._key}/failed").decode())

    def result(self, piece: str) -> float:
        """What came of a piece, as soon as that is known.

        Raises:
            RankError: Whoever took it has failed, or is gone.
        """
        done, heard, said = f"{self._key}/{piece}/done" if self._store is not None else "", time.monotonic(), ""
        with connected():
            while piece not in self._done:
                if self._store.check([done]):
                    self._done[piece] = json.loads(self._store.get(done))
                    break
                self._check()
                time.sleep(POLL)
                rank = self._store.get(f"{self._key}/{piece}/by").decode()
                beat = self._store.get(f"{self._key}/beat/{rank}").decode()
                if beat != said:
                    heard, said = time.monotonic(), beat
                elif time.monotonic() - heard > SILENCE:
                    raise RankError(f"rank {rank} has not been heard of for {SILENCE:.0f} s")
        return float(self._done[piece])
