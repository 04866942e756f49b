"""What generators are made from others with: stored codes, their images, and classifiers that are kept in a folder."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from dim_data import Generator
from dim_data.format import write_atomically
from dim_data.images import LabelledImages, load_real
from dim_data.networks import build_classifier, resolve_device
from dim_data.protocol import recipe_for, train_classifier
from options import HelpFormatter

__all__ = ["images_of", "maker_arguments", "read_source", "trained"]

LOOKED_AT = 500
"""Pictures that are held against the images they should be of."""


def maker_arguments(name: str, description: str | None, dtype: str) -> argparse.ArgumentParser:
    """A parser of what all makers are told; ``dtype`` is the default of the file's."""
    parser = argparse.ArgumentParser(f"reproduce.py {name}", description=description, formatter_class=HelpFormatter)
    parser.add_argument("source", help="a bundled name or a folder")
    parser.add_argument("--out", type=Path, required=True, help="a folder, where classifiers and the result are kept")
    parser.add_argument("--data", help="the training images (default: the dataset of the generator's name)")
    parser.add_argument("--recipe", default="muon_crop", help="recipe of the classifiers")
    parser.add_argument("--ipc", type=int, default=36, help="ipc of the classifiers")
    parser.add_argument("--dtype", choices=("int4", "int8"), default=dtype, help="number format of the file")
    parser.add_argument("--data-root", default=os.environ.get("DIM_DATA_ROOT"), help="default: DIM_DATA_ROOT")
    parser.add_argument("--device", help="default: CUDA where there is one")
    return parser


def read_source(args: argparse.Namespace, whole: bool = True) -> tuple[Generator, LabelledImages]:
    """The generator and the training images; makes the folder.

    The generator must store codes; unless not ``whole``, that of every training image.
    """
    generator = Generator.from_pretrained(args.source)
    full = load_real(args.data or generator.spec.name, generator.spec, root=args.data_root)
    if whole and not torch.equal(_counts(generator, full), generator.bank.counts):
        raise ValueError(f"{args.source} does not store the code of every training image")
    args.out.mkdir(parents=True, exist_ok=True)
    return generator, full


def images_of(generator: Generator, images: LabelledImages) -> LabelledImages | None:
    """The image of each code that a generator stores, in the order of its bank; ``None`` if that is not known.

    Where there are fewer codes than images, it is known of those that :meth:`Generator.keep_codes` kept of all.

    Args:
        generator: Stores codes.
        images: All that codes were made of.
    """
    ordered, counts = images.subset(images.labels.argsort(stable=True)), generator.bank.counts
    there = _counts(generator, images)
    if torch.equal(there, counts):
        return ordered
    if bool((there < counts).any()):
        return None
    everything = Generator(replace(generator.config, codes=len(images), soft_labels=False))
    everything.bank.counts.copy_(there)
    for count in range(len(generator.bank), min(len(generator.bank) + len(counts), len(images) + 1)):
        rows = everything.kept_rows(count)
        if torch.equal(torch.bincount(ordered.labels[rows], minlength=len(counts)), counts):
            kept = ordered.subset(rows)
            return kept if _are_painted(generator, kept) else None
    return None


def _counts(generator: Generator, images: LabelledImages) -> torch.Tensor:
    """Images of each class of the generator's."""
    return torch.bincount(images.labels, minlength=generator.spec.num_classes)


def _are_painted(generator: Generator, images: LabelledImages) -> bool:
    """Whether pictures of the stored codes are, on the whole, far nearer to their images than to others."""
    rows = torch.linspace(0, len(images) - 1, min(LOOKED_AT, len(images))).long()
    pictures = generator.decode(rows).float()
    own, other = ((pictures - images.images[at].float()).abs().mean() for at in (rows, rows.roll(1)))
    return bool(own < other / 2)


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
