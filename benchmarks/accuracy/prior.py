"""Learn a prior from a generator's stored codes and their images, so that it draws new codes for ever.

    python benchmarks/reproduce.py prior cifar10 --classifier cifar10_noise --out runs/noise --data-root DIR

The generator must store the code of every training image. The classifier, what is done of the prior, and the result
are kept in the folder: the same call goes on from there. Only training images are read.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from accuracy.members import trained
from dim_data import Generator
from dim_data.distillation import PriorTrainingConfig, StageStep, TuningConfig, learn_prior
from dim_data.format import TRAINING_CONFIG, write_atomically
from dim_data.generator import read_training
from dim_data.images import LabelledImages, load_real
from dim_data.networks import CLASSIFIERS

RESULT, CHECKPOINT = "generator", "prior.pt"
TUNING = ("draws", "accept", "epochs", "lr")
CHOICES = ("epochs", "batch_size", "lr", "width", "layers", "hidden", "clusters", "features", "blur", "dropout")


def read_arguments(words: Sequence[str]) -> argparse.Namespace:
    """What to learn from, and how."""
    parser = argparse.ArgumentParser(
        "reproduce.py prior", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", help="a bundled name or a folder")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", help="the training images (default: the dataset of the generator's name)")
    parser.add_argument(
        "--classifier",
        default="convnet3",
        help=f"one of {', '.join(sorted(CLASSIFIERS))}, which is trained first, or a generator that holds its teacher",
    )
    parser.add_argument("--recipe", default="muon_crop", help="of the classifier")
    parser.add_argument("--ipc", type=int, default=36, help="of the classifier")
    parser.add_argument("--classifier-epochs", dest="classifier_epochs", type=int, default=1000)
    for name in CHOICES:
        kind = float if name in ("epochs", "lr", "blur", "dropout") else int
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, help="see PriorTrainingConfig")
    for name in TUNING:
        parser.add_argument(f"--tuning-{name}", type=float, help="see TuningConfig; the classifier judges")
    parser.add_argument(
        "--soft-labels",
        dest="soft_labels",
        action="store_true",
        help="keep the classifier, a ConvNet-3, for soft labels",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=("int4", "int8"), default="int4")
    parser.add_argument("--data-root", default=os.environ.get("DIM_DATA_ROOT"), help="default: DIM_DATA_ROOT")
    parser.add_argument("--device")
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
    if step.step % 100 == 0 or "held_out_bits" in step.losses:
        losses = ", ".join(f"{name} {value:.4f}" for name, value in step.losses.items())
        print(f"{time.strftime('%H:%M:%S')} {step.stage}: step {step.step} of {step.steps}, {losses}", flush=True)


def main(words: Sequence[str]) -> Path:
    """Learn one prior and return the folder of the new generator."""
    args = read_arguments(words)
    generator = Generator.from_pretrained(args.source)
    full = load_real(args.data or generator.spec.name, generator.spec, root=args.data_root)
    if torch.bincount(full.labels).tolist() != generator.bank.counts.tolist():
        raise ValueError(f"{args.source} does not store the code of every training image")
    args.out.mkdir(parents=True, exist_ok=True)
    config = PriorTrainingConfig(**{name: getattr(args, name) for name in CHOICES if getattr(args, name) is not None})
    tuning = TuningConfig(**{name: value for name in TUNING if (value := vars(args)[f"tuning_{name}"]) is not None})
    bits: list[float] = []

    def on_step(step: StageStep) -> None:
        report(step)
        if step.stage == "prior":
            bits.extend(value for name, value in step.losses.items() if name == "held_out_bits")

    classifier = seen_by(args, full)
    result = learn_prior(
        generator,
        classifier,
        classifier if args.soft_labels else None,
        config=config,
        images=full.subset(full.labels.argsort(stable=True)),
        tuning=tuning,
        seed=args.seed,
        device=args.device,
        checkpoint=args.out / CHECKPOINT,
        on_step=on_step,
    )
    folder = result.save_pretrained(args.out / RESULT, dtype="int4" if args.dtype == "int4" else torch.int8)
    training = read_training(generator.folder or Path())
    training |= {
        "derived": f"reproduce.py prior {args.source} --classifier {args.classifier}",
        "prior": asdict(config),
        **({"tuning": asdict(tuning)} if tuning.draws else {}),
        "held_out_bits": round(min(bits), 2) if bits else None,
    }
    text = json.dumps(training, indent=2) + "\n"
    write_atomically(folder / TRAINING_CONFIG, lambda path: path.write_text(text, encoding="utf-8"))
    return folder
