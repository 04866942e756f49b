"""Train a smaller decoder to paint a generator's latents, under classifiers trained on its own pictures.

    python benchmarks/reproduce.py slim cifar10 --options '{"width": 80, "top_width": 8}' --out runs/slim

No real image is read. Classifiers, what is done of the decoder, and the result are kept in the folder: the same call
goes on from there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch

from accuracy.members import CHECKPOINT, RESULT, maker_arguments, report, trained, write_training
from dim_data import Generator
from dim_data.distillation import slim_decoder
from dim_data.generator import read_training
from dim_data.images import LabelledImages
from dim_data.networks import CLASSIFIERS


def read_arguments(words: Sequence[str]) -> argparse.Namespace:
    """What to paint, and with what."""
    parser = maker_arguments("slim", __doc__, "int8", images=False)
    parser.add_argument("--options", type=json.loads, required=True, help="of the new decoder, as JSON")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--classifiers", nargs="+", default=["convnet3", "convnet3"], choices=sorted(CLASSIFIERS))
    parser.add_argument("--epochs", type=int, nargs="+", default=[30, 300], help="of each, in turn")
    parser.add_argument("--pictures", type=int, default=50_000, help="to train them on, where none is stored")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(words)


def own_pictures(generator: Generator, count: int) -> LabelledImages:
    """The pictures of all stored codes, or else ``count`` drawn ones."""
    if generator.source.finite:
        bank = generator.bank
        return LabelledImages(generator.decode(torch.arange(len(bank))), bank.labels, generator.spec)
    labels = torch.arange(count) % generator.spec.num_classes
    serials = torch.arange(count) // generator.spec.num_classes
    return LabelledImages(generator.synthesize(labels, serials), labels, generator.spec)


def main(words: Sequence[str]) -> Path:
    """Make one generator and return its folder."""
    args = read_arguments(words)
    generator = Generator.from_pretrained(args.source)
    args.out.mkdir(parents=True, exist_ok=True)
    pictures = own_pictures(generator, args.pictures)
    members = [
        trained(args.out / f"classifier{place}_{name}.safetensors", name, pictures, args.seed + place, args, epochs)
        for place, (name, epochs) in enumerate(zip(args.classifiers, args.epochs, strict=True))
    ]
    result = slim_decoder(
        generator,
        args.options,
        members,
        steps=args.steps,
        seed=args.seed,
        device=args.device,
        checkpoint=args.out / CHECKPOINT,
        on_step=report,
    )
    folder = result.save_pretrained(args.out / RESULT, dtype="int4" if args.dtype == "int4" else torch.int8)
    training = read_training(generator.folder or Path())
    made = f"slim_decoder({json.dumps(args.options)}, steps={args.steps}) under {args.classifiers} of its own pictures"
    training["derived"] = "; ".join(filter(None, [training.get("derived"), made]))
    write_training(folder, training)
    return folder
