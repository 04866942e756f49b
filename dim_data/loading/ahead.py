"""Items made ahead of their time, in a thread, while the caller works on those before."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

__all__ = ["made_ahead"]

T = TypeVar("T")

_MAKING = threading.Lock()
"""Held while an item is made: a process is forked between two, or locks inside torch would stay shut in the child."""

if hasattr(os, "register_at_fork"):  # elsewhere every process is spawned
    os.register_at_fork(before=_MAKING.acquire, after_in_parent=_MAKING.release, after_in_child=_MAKING.release)


def made_ahead(items: Iterator[T], depth: int, may: Callable[[], bool]) -> Iterator[T]:
    """``items`` in their order, of which a thread makes the next ``depth`` before they are asked for.

    It begins when the second item is asked for: who takes only one is done with it. An exception is raised where its
    item would have been. Where the caller leaves off, the thread ends with the item it is making. In a process that is
    forked meanwhile items go on in their order, made when they are asked for.

    Args:
        items: Used in one thread at a time.
        depth: Items made and not yet asked for, at most.
        may: Asked before each item, in the caller's thread: whether the thread may make it.
    """
    home, end = os.getpid(), object()
    made: deque[tuple[Any, BaseException | None]] = deque()
    asked: deque[Future[None]] = deque()

    def make() -> None:
        try:
            made.append((next(items, end), None))
        except BaseException as error:
            made.append((None, error))

    def make_alone() -> None:
        with _MAKING:
            make()

    pool: ThreadPoolExecutor | None = None
    try:
        while True:
            if pool is not None and os.getpid() == home:
                while len(asked) < depth and may():
                    asked.append(pool.submit(make_alone))
                if asked:
                    asked.popleft().result()
            if not made:
                make()
            item, error = made.popleft()
            if error is not None:
                raise error
            if item is end:
                return
            if pool is not None and os.getpid() == home and may():
                asked.append(pool.submit(make_alone))
            yield item
            pool = pool or ThreadPoolExecutor(1, "dim_data-ahead")
    finally:
        if pool is not None and os.getpid() == home:
            pool.shutdown(wait=False, cancel_futures=True)  # a garbage collector may come by while a thread works
