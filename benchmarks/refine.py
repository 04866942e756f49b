"""Refine a generator's codes under classifiers trained for it, label the pictures anew, and keep some of them.

    python benchmarks/refine.py cifar10 --codes 19700 --dtype int4 --out runs/small --data-root DIR

The generator must store the code of every training image. Classifiers are kept in the folder: a second call trains
those that are missing, and refines anew. Only training images are read.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from dim_data import Generator
from dim_data.distillation import refine_codes, relabel_codes
from dim_data.format import TRAINING_CONFIG, write_atomically
from dim_data.generator import read_training
from dim_data.images import LabelledImages, load_real
from dim_data.networks import CLASSIFIERS, build_classifier, resolve_device
from dim_data.protocol import recipe_for, train_classifier


def trained(path: Path, name: str, data: LabelledImages, seed: int, args: argparse.Namespace) -> nn.Module:
    """The classifier in the file ``path``, or one trained on ``data`` and written there."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build_classifier(name, data.spec)
    if path.exists():
        model.load_state_dict(load_file(path))
        return model
    recipe = recipe_for(args.recipe, data.spec, args.ipc)
    options = {"ipc": args.ipc, "epochs": args.epochs, "seed": seed, "device": resolve_device(args.device)}
    for step in train_classifier(model, data, recipe, **options):
        if step.step % 100 == 0:
            print(f"{path.stem}: step {step.step} of {step.steps}, loss {step.loss:.3f}", flush=True)
    write_atomically(path, lambda file: save_file({k: v.contiguous() for k, v in model.state_dict().items()}, file))
    return model


def main(argv: list[str] | None = None) -> Path:
    """Refine one generator and return its new folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="a bundled name or a folder")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", help="the training images (default: the dataset of the generator's name)")
    parser.add_argument("--codes", type=int, help="how many to keep (default: all)")
    parser.add_argument("--looks", type=int, default=10)
    parser.add_argument("--classifiers", nargs="+", default=["resnet10_half", "convnet3"], choices=sorted(CLASSIFIERS))
    parser.add_argument("--recipe", default="muon_crop")
    parser.add_argument("--ipc", type=int, default=36)
    parser.add_argument("--epochs", type=int, default=1000)
    parser.add_argument("--temperature", type=float, default=3.0, help="of new soft labels in place of old; 0: none")
    parser.add_argument("--dtype", choices=("int4", "int8"), default="int8")
    parser.add_argument("--data-root", default=os.environ.get("DIM_DATA_ROOT"), help="default: DIM_DATA_ROOT")
    parser.add_argument("--device")
    args = parser.parse_args(argv)
    started = time.monotonic()
    generator = Generator.from_pretrained(args.source)
    full = load_real(args.data or generator.spec.name, generator.spec, root=args.data_root)
    if torch.bincount(full.labels).tolist() != generator.bank.counts.tolist():
        raise ValueError(f"{args.source} does not store the code of every training image")
    args.out.mkdir(parents=True, exist_ok=True)
    members = [
        trained(args.out / f"classifier{seed}_{name}.safetensors", name, full, seed, args)
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
    refined.save_pretrained(args.out, dtype="int4" if args.dtype == "int4" else torch.int8)
    training = read_training(generator.folder or Path())
    training["refining_minutes"] = round((time.monotonic() - started) / 60, 1)
    derived = f"keep_codes({count}), then refine_codes(looks={args.looks}) under {args.classifiers}"
    labelled = f", then relabel_codes(temperature={args.temperature:g}) by them" if relabelled else ""
    training["derived"] = derived + labelled
    text = json.dumps(training, indent=2) + "\n"
    write_atomically(args.out / TRAINING_CONFIG, lambda path: path.write_text(text, encoding="utf-8"))
    return args.out


if __name__ == "__main__":
    main()
