"""Learn a prior from a generator's stored codes and their images, so that it draws new codes for ever.

    python benchmarks/reproduce.py prior cifar10 --classifier cifar10_noise --out runs/noise --data-root DIR

From a generator that stores the code of every training image, or of those that ``dim-data shrink`` kept, the prior
learns mirrored and shifted images besides; from others the codes alone. The classifier, what is done of the prior, and
the result are kept in the folder: the same call goes on from there. Only training images are read.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from accuracy.members import images_of, maker_arguments, read_source, trained
from dim_data import Generator
from dim_data.distillation import PriorTrainingConfig, StageStep, learn_prior
from dim_data.format import TRAINING_CONFIG, write_json
from dim_data.generator import read_training
from dim_data.images import LabelledImages
from dim_data.networks import CLASSIFIERS

RESULT, CHECKPOINT, LOOKS = "generator", "prior.pt", "looks.txt"
"""Of :data:`LOOKS` a line has the bits of an image that was held out, and the seconds since the line before."""
SHARES = ("epochs", "lr", "accept", "blur", "dropout")
NUMBERS = ("batch_size", "width", "layers", "hidden", "clusters", "features", "anchors", *SHARES)
CHOICES = (*NUMBERS, "turned")


def read_arguments(words: Sequence[str]) -> argparse.Namespace:
    """What to learn from, and how."""
    parser = maker_arguments("prior", __doc__, "int4")
    parser.add_argument(
        "--classifier",
        default="convnet3",
        help=f"one of {', '.join(sorted(CLASSIFIERS))}, which is trained first, or a generator that holds its teacher",
    )
    parser.add_argument(
        "--classifier-epochs", dest="classifier_epochs", type=int, default=1000, help="epochs of its training"
    )
    for name in NUMBERS:
        kind = float if name in SHARES else int
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, help="see PriorTrainingConfig")
    parser.add_argument("--turned", action="store_true", default=None, help="see PriorTrainingConfig")
    parser.add_argument(
        "--soft-labels",
        dest="soft_labels",
        action="store_true",
        help="keep the classifier, a ConvNet-3, for soft labels",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random (default: 0)")
    return parser.parse_args(words)


def seen_by(args: argparse.Namespace, images: LabelledImages) -> nn.Module:
    """The classifier that ``args`` names."""
    if args.classifier in CLASSIFIERS:
        path = args.out / f"classifier_{args.classifier}.safetensors"
        return trained(path, args.classifier, images, args.seed, args, args.classifier_epochs)
    held = Generator.from_pretrained(args.classifier)
    if not isinstance(teacher := getattr(held, "teacher", None), nn.Module):
        raise ValueError(f"{args.classifier} holds no teacher")
    return teacher


def report(step: StageStep) -> None:
    """A line now and then, and for each look at what is held out."""
    if step.step % 100 == 0 or step.step == step.steps or "held_out_bits" in step.losses:
        losses = ", ".join(f"{name} {value:.4f}" for name, value in step.losses.items())
        print(f"{time.strftime('%H:%M:%S')} {step.stage}: step {step.step} of {step.steps}, {losses}", flush=True)


def main(words: Sequence[str]) -> Path:
    """Learn one prior and return the folder of the new generator."""
    args = read_arguments(words)
    generator, full = read_source(args, whole=False)
    images = images_of(generator, full)
    print("learning from the stored codes" + (", and from their images" if images else " alone"), flush=True)
    config = PriorTrainingConfig(**{name: getattr(args, name) for name in CHOICES if getattr(args, name) is not None})
    classifier = seen_by(args, full)
    looks, since = args.out / LOOKS, time.monotonic()  # a call that goes on does not see those before

    def on_step(step: StageStep) -> None:
        nonlocal since
        report(step)
        if step.stage == "prior" and "held_out_bits" in step.losses:
            now = time.monotonic()
            with looks.open("a", encoding="utf-8") as file:
                file.write(f"{step.losses['held_out_bits']:.2f} {now - since:.1f}\n")
            since = now

    result = learn_prior(
        generator,
        classifier,
        classifier if args.soft_labels else None,
        config=config,
        images=images,
        seed=args.seed,
        device=args.device,
        checkpoint=args.out / CHECKPOINT,
        on_step=on_step,
    )
    folder = result.save_pretrained(args.out / RESULT, dtype="int4" if args.dtype == "int4" else torch.int8)
    training = read_training(generator.folder or Path())
    bits, seconds = zip(*(map(float, line.split()) for line in looks.read_text("utf-8").splitlines()), strict=True)
    training |= {
        "derived": f"reproduce.py prior {args.source} --classifier {args.classifier}",
        "prior": asdict(config),
        "minutes": round(training.get("minutes", 0) + sum(seconds) / 60, 1),
        "held_out_bits": min(bits),
    }
    write_json(folder / TRAINING_CONFIG, training)
    (args.out / CHECKPOINT).unlink(missing_ok=True)  # all is safe
    return folder
