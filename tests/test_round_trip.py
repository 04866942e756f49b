"""Distil, push, and in another process with an empty cache pull and train: all on the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hub_server import client_environment, serve_hub

QUICK = ["options.width=8", "options.top_width=4", "options.blocks=1", "reconstruction.steps=4", "matching.steps=2"]
QUICK += ["pool.ages=1", "selection.checkpoints=0", "pool.classifiers=resnet10_half"]

TRAIN = """
import torch
from torch.utils.data import DataLoader
from torchvision.transforms import ToTensor
from dim_data import DistilledDataset

train_set = DistilledDataset("alice/dots", ipc=4, transform=ToTensor())
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 3))
for images, labels in DataLoader(train_set, batch_size=6, shuffle=True):
    torch.nn.functional.cross_entropy(model(images), labels).backward()
print(train_set.generator.revision)
"""


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    arrays = {}
    for split in ("train", "test"):
        arrays[f"{split}_labels"] = np.arange(30) % 3
        arrays[f"{split}_images"] = rng.integers(0, 255, (30, 28, 28), np.uint8)
    np.savez(tmp_path / "dots.npz", **arrays)
    return tmp_path / "dots.npz"


@pytest.mark.slow
def test_distil_push_pull_train_and_compare_with_the_card(npz: Path, tmp_path: Path) -> None:
    with serve_hub() as server:
        home = client_environment(server, tmp_path / "home")
        away = client_environment(server, tmp_path / "away")

        def call(environment: dict[str, str], *arguments: Any, code: int = 0) -> str:
            command = [sys.executable, *map(str, arguments)]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
            assert done.returncode == code, done.stderr
            return done.stdout

        cli = ["-m", "dim_data.cli.commands"]
        settings = [part for setting in QUICK for part in ("--set", setting)]
        call(home, *cli, "distill", npz, "--out", "run", "--device", "cpu", *settings)
        measured = ["--test", npz, "--device", "cpu", "--json"]
        cell = ["--ipc", 1, "--epochs", 1, "--seeds", 0, "--classifier", "resnet10_half"]
        (tmp_path / "result.json").write_text(call(home, *cli, "evaluate", "run/generator", *measured, *cell))
        pushed = json.loads(call(home, *cli, "push", "run", "alice/dots", "--evaluations", "result.json", "--json"))
        commit = server.repos["alice/dots"].refs["main"]
        assert pushed["url"].endswith(commit)

        pulled = json.loads(call(away, *cli, "pull", "alice/dots", "--out", "mine", "--json"))
        assert pulled == {"folder": "mine", "commit": commit}
        for name in ("config.json", "model.safetensors", "training_config.json"):
            assert (tmp_path / "mine" / name).read_bytes() == (tmp_path / "run" / "generator" / name).read_bytes()
        facts = json.loads(call(away, *cli, "info", "alice/dots", "--json"))
        assert facts["revision"] == commit
        assert facts["accuracies"][0]["ipc"] == 1
        again = json.loads(call(away, *cli, "evaluate", "alice/dots", *measured))
        stated = json.loads((tmp_path / "result.json").read_text())
        assert again[0]["stated"] == pytest.approx(stated["mean"], abs=1e-4)
        assert again[0]["agrees"] is True
        assert call(away, "-c", TRAIN).strip() == commit
