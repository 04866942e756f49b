"""Classifiers that a generator is made with: trained once, kept in a folder."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from dim_data.format import write_atomically
from dim_data.images import LabelledImages
from dim_data.networks import build_classifier, resolve_device
from dim_data.protocol import recipe_for, train_classifier

__all__ = ["trained"]


def trained(path: Path, name: str, data: LabelledImages, seed: int, args: argparse.Namespace, epochs: int) -> nn.Module:
    """The classifier in the file ``path``, or one trained on ``data`` and written there."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build_classifier(name, data.spec)
    if path.exists():
        model.load_state_dict(load_file(path))
        return model
    recipe = recipe_for(args.recipe, data.spec, args.ipc)
    options = {"ipc": args.ipc, "epochs": epochs, "seed": seed, "device": resolve_device(args.device)}
    for step in train_classifier(model, data, recipe, **options):
        if step.step % 100 == 0:
            print(f"{path.stem}: step {step.step} of {step.steps}, loss {step.loss:.3f}", flush=True)
    write_atomically(path, lambda file: save_file({k: v.contiguous() for k, v in model.state_dict().items()}, file))
    return model
