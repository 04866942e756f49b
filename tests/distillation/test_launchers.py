"""``distill()`` inside a job of Accelerate or Fabric, and started by ``torchrun``."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from conftest import SMALL_CLASSIFIERS, TINY, make_data
from dim_data.distillation import DistillConfig, StageStep, distill
from dim_data.networks import CLASSIFIERS
from ranks import run_ranks

DATA = make_data(per_class=8)
SETTINGS: dict[str, Any] = {
    "options": TINY,
    "pool": {"ages": [2, 2]},
    "reconstruction": {"steps": 2, "batch_size": 4},
    "matching": {"steps": 2, "batch_size": 4},
    "selection": {"checkpoints": 2, "images": 6},
}


def use_frameworks(folder: Path) -> dict[str, Any]:
    """What one of two ranks finds in a job of each."""
    from accelerate import Accelerator
    from lightning.fabric import Fabric

    CLASSIFIERS.update(SMALL_CLASSIFIERS)
    found: dict[str, Any] = {}

    def run(name: str) -> bool:
        group, threads, steps = dist.group.WORLD, torch.get_num_threads(), list[StageStep]()
        distill(DATA, config=DistillConfig.from_dict(SETTINGS), out=folder / name, device="cpu", on_step=steps.append)
        found[name] = [(step.stage, step.step, dict(step.losses)) for step in steps]
        return dist.group.WORLD is group and torch.get_num_threads() == threads

    accelerator = Accelerator(cpu=True)
    found["untouched"] = [run("accelerate")]
    found["sums"] = [accelerator.reduce(torch.tensor(accelerator.process_index + 1.0), "sum").item()]
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
    fabric.launch()
    found["untouched"].append(run("fabric"))
    found["sums"].append(fabric.all_reduce(torch.tensor(fabric.global_rank + 1.0), reduce_op="sum").item())
    return found


def test_it_works_in_the_group_that_is_there(tmp_path: Path) -> None:
    pytest.importorskip("lightning")
    pytest.importorskip("accelerate")
    first, second = run_ranks(use_frameworks, 2, tmp_path)
    assert first == second
    assert first["accelerate"] == first["fabric"]
    assert {stage for stage, *_ in first["fabric"]} == {"pool", "reconstruction", "matching"}
    assert first["untouched"] == [True, True]
    assert first["sums"] == [3, 3]


def torchrun(agents: int, processes: int, *words: Any) -> list[subprocess.CompletedProcess[str]]:
    """Start a command by so many agents on this machine, as on as many machines; the first has the store."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", agents, "--nproc_per_node", processes]
    command += ["--rdzv_backend", "c10d", "--rdzv_endpoint", f"127.0.0.1:{port}", "--local_addr", "127.0.0.1"]
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # A process that is aborted says where it was.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DIM_DATA_COMPILE": "0", "PYTHONFAULTHANDLER": "1"}
    started = []
    for agent in range(agents):
        # Left to find out who has the store, both on one machine try to.
        own = [*command, "--rdzv_conf", f"is_host={int(agent == 0)}", "-m", "dim_data", *words]
        started.append(subprocess.Popen([str(word) for word in own], env=environment, **options))
    try:
        said = [agent.communicate(timeout=240) for agent in started]
    except subprocess.TimeoutExpired:
        for process in [*(child for agent in started for child in _children(agent.pid)), *(a.pid for a in started)]:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGABRT)
        texts = [agent.communicate()[1] for agent in started]
        raise AssertionError("did not end; " + "\n\n".join(texts)) from None
    return [
        subprocess.CompletedProcess(agent.args, agent.returncode, *text)
        for agent, text in zip(started, said, strict=True)
    ]


def _children(process: int) -> list[int]:
    """The processes that a process has started, where the system tells."""
    found = Path(f"/proc/{process}/task/{process}/children")
    return [int(child) for child in found.read_text().split()] if found.exists() else []


def test_two_agents_of_torchrun_share_a_run_and_one_speaks(tmp_path: Path) -> None:
    path = tmp_path / "tiny.npz"
    np.savez(path, train_images=DATA.images[:, 0].numpy(), train_labels=DATA.labels.numpy())
    words = ["distill", path, "--out", tmp_path / "run", "--device", "cpu", "--json"]
    short = ("pool.ages=1", "reconstruction.steps=1", "matching.steps=1", "selection.checkpoints=0")
    for setting in (*short, "options.width=8", "options.top_width=4"):
        words += ["--set", setting]
    done = torchrun(2, 1, *words)
    assert [one.returncode for one in done] == [0, 0], "\n".join(one.stderr for one in done)
    (said,) = [one.stdout for one in done if one.stdout]
    assert json.loads(said)["folder"] == str(tmp_path / "run" / "generator")
    log = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in log] == ["pool", "reconstruction", "matching"]
    failed = torchrun(1, 2, *words, "--set", "matching.batch_size=7")
    assert failed[0].returncode == 1
    assert failed[0].stderr.count("dim-data: 7 images a step cannot be shared out equally to 2 ranks") == 1
