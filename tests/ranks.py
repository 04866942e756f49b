"""Several processes of one group, on this machine, for the tests of what ranks share."""

from __future__ import annotations

import multiprocessing
import os
import socket
import time
from collections.abc import Callable
from queue import Empty
from typing import Any

TIMEOUT = 240


def run_ranks(work: Callable[..., Any], world_size: int, *args: Any) -> list[Any]:
    """What ``work(*args)`` returns on each rank; it finds its rank where ``torchrun`` leaves it, and makes the group.

    ``work`` is a function of a module, and what it returns is pickled. A rank that raises fails the test.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    ranks = [
        context.Process(target=_run, args=(queue, rank, world_size, port, work, args), daemon=True)
        for rank in range(world_size)
    ]
    for process in ranks:
        process.start()
    answers: dict[int, Any] = {}
    deadline = time.monotonic() + TIMEOUT
    try:
        while len(answers) < world_size:
            try:
                rank, answer, error = queue.get(timeout=1)
            except Empty:
                dead = [rank for rank, process in enumerate(ranks) if process.exitcode and rank not in answers]
                if dead or time.monotonic() > deadline:
                    raise AssertionError(f"ranks {dead} died, {sorted(answers)} answered") from None
                continue
            if error:
                raise AssertionError(f"rank {rank}: {error}")
            answers[rank] = answer
        return [answers[rank] for rank in range(world_size)]
    finally:
        for process in ranks:
            process.join(5 if len(answers) == world_size else 0)
            process.kill()


def _run(queue: Any, rank: int, world_size: int, port: int, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "LOCAL_WORLD_SIZE": world_size}
    os.environ.update({name: str(value) for name, value in {**numbers, "NODE_RANK": 0, "MASTER_PORT": port}.items()})
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    import traceback

    import torch

    torch.set_num_threads(1)
    try:
        queue.put((rank, work(*args), ""))
    except BaseException:
        queue.put((rank, None, traceback.format_exc()))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
