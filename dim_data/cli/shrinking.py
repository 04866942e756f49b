"""``dim-data shrink``: fewer codes, fewer bits, noise in place of codes, or a decoder that does less."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from torch import nn

from dim_data.cli.progress import SeedBar, StageBars, interruptible
from dim_data.cli.settings import parse_options
from dim_data.cli.streams import say
from dim_data.distillation import slim_decoder
from dim_data.format import TRAINING_CONFIG, check_writable, write_atomically
from dim_data.generator import Generator, describe, read_training
from dim_data.protocol import train_teacher

__all__ = ["run_shrink"]

PART = "slimming.pt"
"""In the new folder until all is there: what is done of the decoder."""


def run_shrink(args: argparse.Namespace) -> int:
    """Make a smaller generator of another."""
    options, part = parse_options(args.set), args.out / PART
    if args.out.exists() and (not args.out.is_dir() or {*args.out.iterdir()} - ({part} if options else set())):
        raise FileExistsError(f"{args.out} is not an empty folder: choose another --out")
    if args.soft_labels and not args.noise:
        raise ValueError("--soft-labels trains a teacher for --noise; codes keep the soft labels they have")
    check_writable(args.out, folder=True)
    generator = Generator.from_pretrained(args.source, revision=args.revision, device=args.device)
    training, done = read_training(generator.folder or Path()), list[str]()
    named = f"train_teacher(epochs={args.epochs}, seed={args.seed})"
    if options:
        generator.with_decoder(options)  # what cannot be is said before anything is trained
    if not args.noise and (args.codes is not None or args.soft_labels is False):
        count, keep = args.codes or generator.config.codes, args.soft_labels is not False
        generator = generator.keep_codes(count, args.seed, soft_labels=keep)
        done.append(f"keep_codes({count}, seed={args.seed}{'' if keep else ', soft_labels=False'})")
    teacher = None
    if (generator.source.finite or not args.noise) and (options or args.soft_labels):
        started = time.monotonic()
        with SeedBar() as bar:
            teaching = {"epochs": args.epochs, "seed": args.seed}
            teacher = train_teacher(generator, **teaching, device=args.device, on_step=bar.advance)
        training["teacher_minutes"] = round((time.monotonic() - started) / 60, 1)
    if args.noise:
        kept = teacher if args.soft_labels else None
        generator = generator.forget_codes(args.rank, kept)
        done.append(f"forget_codes(rank={args.rank}{f', teacher={named}' if kept else ''})")
    if options and teacher is not None:
        generator = _slimmed(args, generator, options, teacher)
        done.append(f"slim_decoder({options}, [{named}], steps={args.steps}, seed={args.seed})")
    generator.save_pretrained(args.out, dtype="int4" if args.dtype == "int4" else getattr(torch, args.dtype))
    if done:
        training["derived"] = ", then ".join(str(step) for step in (training.get("derived"), *done) if step)
    text = json.dumps(training, indent=2) + "\n"
    write_atomically(args.out / TRAINING_CONFIG, lambda path: path.write_text(text, encoding="utf-8"))
    facts = describe(generator, args.out)
    size = f"{facts['bytes'] / 1e6:.2f} MB"
    say(json.dumps(facts, indent=2) if args.json else f"{args.out}: {size}, {facts['latents']}")
    return 0


def _slimmed(args: argparse.Namespace, generator: Generator, options: dict[str, int], teacher: nn.Module) -> Generator:
    """The generator with a decoder of these options, trained in as many sittings as it takes."""
    args.out.mkdir(parents=True, exist_ok=True)
    with StageBars() as bars, interruptible() as asked:
        return slim_decoder(
            generator,
            options,
            [teacher],
            steps=args.steps,
            seed=args.seed,
            device=args.device,
            checkpoint=args.out / PART,
            on_step=bars.advance,
            should_stop=asked,
        )
