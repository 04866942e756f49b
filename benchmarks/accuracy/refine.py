"""Refine a generator's codes under classifiers trained for it, label the pictures anew, and keep some of them.

    python benchmarks/reproduce.py refine cifar10 --codes 19700 --dtype int4 --out runs/small --data-root DIR

The generator must store the code of every training image. Classifiers are kept in the folder: a second call trains
those that are missing, and refines anew. Only training images are read.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from accuracy.members import maker_arguments, read_source, trained
from dim_data.distillation import refine_codes, relabel_codes
from dim_data.format import TRAINING_CONFIG, write_json
from dim_data.generator import read_training
from dim_data.networks import CLASSIFIERS


def read_arguments(words: Sequence[str]) -> argparse.Namespace:
    """What to refine, and how."""
    parser = maker_arguments("refine", __doc__, "int8")
    parser.add_argument("--codes", type=int, help="how many to keep (default: all)")
    parser.add_argument("--looks", type=int, default=10, help="how often each code is looked at")
    parser.add_argument(
        "--classifiers",
        nargs="+",
        default=["resnet10_half", "convnet3"],
        choices=sorted(CLASSIFIERS),
        help="networks that judge, in turn",
    )
    parser.add_argument("--epochs", type=int, default=1000, help="epochs of the classifiers")
    parser.add_argument("--temperature", type=float, default=3.0, help="of new soft labels in place of old; 0: none")
    return parser.parse_args(words)


def main(words: Sequence[str]) -> Path:
    """Refine one generator and return its new folder."""
    args = read_arguments(words)
    started = time.monotonic()
    generator, full = read_source(args)
    members = [
        trained(args.out / f"classifier{seed}_{name}.safetensors", name, full, seed, args, args.epochs)
        for seed, name in enumerate(args.classifiers)
    ]
    count = args.codes or len(full)
    images = full.subset(full.labels.argsort(stable=True)[generator.kept_rows(count)])
    refined = refine_codes(
        generator.keep_codes(count),
        images,
        members,
        looks=args.looks,
        device=args.device,
        on_step=lambda s: print(f"batch {s.step} of {s.steps}, loss {s.losses['refining']:.3f}", flush=True),
    )
    relabelled = generator.config.soft_labels and args.temperature > 0
    if relabelled:
        refined = relabel_codes(refined, members, temperature=args.temperature, device=args.device)
    training = read_training(generator.folder or Path())  # it may lie in the same folder
    refined.save_pretrained(args.out, dtype="int4" if args.dtype == "int4" else torch.int8)
    training["refining_minutes"] = round((time.monotonic() - started) / 60, 1)
    derived = f"keep_codes({count}), then refine_codes(looks={args.looks}) under {args.classifiers}"
    labelled = f", then relabel_codes(temperature={args.temperature:g}) by them" if relabelled else ""
    training["derived"] = derived + labelled
    write_json(args.out / TRAINING_CONFIG, training)
    return args.out
