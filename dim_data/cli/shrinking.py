"""``dim-data shrink``: fewer codes, fewer bits, noise in place of codes, or a decoder that does less."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dim_data.cli.progress import SeedBar, StageBars, interruptible
from dim_data.cli.settings import parse_options
from dim_data.cli.streams import say
from dim_data.distillation import SLIM_STEPS, claimed, slim_decoder
from dim_data.format import CONFIG, TRAINING_CONFIG, WEIGHTS, check_writable, write_json
from dim_data.generator import Generator, describe, read_training
from dim_data.protocol import seconds_kept, train_teacher

__all__ = ["run_shrink"]

TEACHER, DECODER = "teacher.pt", "slimming.pt"
"""In the new folder until all is there: what is done of either."""
UNFINISHED = ".unfinished"
"""In the new folder while the files of the result are written: until it is gone, they are nobody's."""
MADE = (WEIGHTS, CONFIG, TRAINING_CONFIG)


def run_shrink(args: argparse.Namespace) -> int:
    """Make a smaller generator of another."""
    options = parse_options(args.set)
    kept = [TEACHER] * bool(options or args.soft_labels) + [DECODER] * bool(options)
    _check_folder(args.out, kept)
    if args.soft_labels and not args.noise:
        raise ValueError("--soft-labels trains a teacher for --noise; codes keep the soft labels they have")
    for name, read in (("rank", args.noise), ("epochs", args.soft_labels or options), ("steps", options)):
        if getattr(args, name) is not None and not read:
            raise ValueError(f"--{name} would not be read: dim-data shrink --help says what it goes with")
    rank = args.rank or 128
    check_writable(args.out, folder=True)
    generator = Generator.from_pretrained(args.source, revision=args.revision, device=args.device)
    training, done = read_training(generator.folder or Path()), list[str]()
    if options:
        generator.with_decoder(options)  # what cannot be is said before anything is trained
    if args.noise and generator.source.finite:  # and so is a rank that is too high
        replace(generator.config, source="noise", codes=0, rank=min(rank, generator.bank.size))
    elif args.noise:  # and that there are none to forget
        generator.forget_codes(rank)
    if not generator.source.finite and (args.codes is not None or args.soft_labels is False):
        raise ValueError("--codes and --no-soft-labels are for stored codes, and this generator draws noise")
    if not args.noise and (args.codes is not None or args.soft_labels is False):
        count, keep = args.codes or generator.config.codes, args.soft_labels is not False
        generator = generator.keep_codes(count, args.seed, soft_labels=keep)
        done.append(f"keep_codes({count}, seed={args.seed}{'' if keep else ', soft_labels=False'})")
    with claimed(args.out):
        _check_folder(args.out, kept)  # another may have been at work there until now
        generator = _train(args, generator, options, rank, training, done)
        if done:
            training["derived"] = ", then ".join(str(step) for step in (training.get("derived"), *done) if step)
        (args.out / UNFINISHED).touch()
        generator.save_pretrained(args.out, dtype="int4" if args.dtype == "int4" else getattr(torch, args.dtype))
        write_json(args.out / TRAINING_CONFIG, training)
        (args.out / UNFINISHED).unlink()
        for path in _own(args.out, kept) | _leavings(args.out, MADE):
            path.unlink(missing_ok=True)
    facts = describe(generator, args.out)
    size = f"{facts['bytes'] / 1e6:.2f} MB"
    say(json.dumps(facts, indent=2) if args.json else f"{args.out}: {size}, {facts['latents']}")
    return 0


def _train(
    args: argparse.Namespace,
    generator: Generator,
    options: dict[str, int],
    rank: int,
    training: dict[str, Any],
    done: list[str],
) -> Generator:
    """The generator with what takes long; how it was made goes into ``training`` and ``done``."""
    epochs, steps = args.epochs or 1000, args.steps or SLIM_STEPS
    named, teacher = f"train_teacher(epochs={epochs}, seed={args.seed})", None
    if options or args.soft_labels:
        with _checkpointed(args, SeedBar(), TEACHER) as told:
            teacher = train_teacher(generator, epochs=epochs, **told)
        training["teacher_minutes"] = round(seconds_kept(args.out / TEACHER) / 60, 1)
    if args.noise:
        with _one_thread() if options else nullcontext():
            generator = generator.forget_codes(rank, teacher if args.soft_labels else None)
        done.append(f"forget_codes(rank={rank}{f', teacher={named}' if args.soft_labels else ''})")
    if options and teacher is not None:
        with _checkpointed(args, StageBars(), DECODER) as told:
            generator = slim_decoder(generator, options, [teacher], steps=steps, **told)
        done.append(f"slim_decoder({options}, [{named}], steps={steps}, seed={args.seed})")
    return generator


def _check_folder(out: Path, kept: Sequence[str]) -> None:
    """Refuse a folder with anything but what this command left there: ``kept``, and a result that is not whole."""
    own = _own(out, kept)
    if (out / UNFINISHED).is_file():
        own |= _own(out, [UNFINISHED, *MADE])
    if out.exists() and (not out.is_dir() or {*out.iterdir()} - own):
        raise FileExistsError(f"{out} is not an empty folder: choose another --out")


def _own(out: Path, names: Sequence[str]) -> set[Path]:
    """The files of these names, and what a kill left half-written of them."""
    return {out / name for name in names} | _leavings(out, names)


def _leavings(out: Path, names: Sequence[str]) -> set[Path]:
    return {path for name in names for path in out.glob(f".{name}.*.tmp")}


@contextmanager
def _one_thread() -> Iterator[None]:
    """Within, sums have the same bits whatever the number of threads: a decoder that goes on must know its latents."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _checkpointed(args: argparse.Namespace, bars: SeedBar | StageBars, name: str) -> Iterator[dict[str, Any]]:
    """What a training is told that shows how far it is, stops when asked to, and goes on later from a file."""
    with bars, interruptible() as asked:
        told = {"seed": args.seed, "device": args.device, "checkpoint": args.out / name}
        yield told | {"on_step": bars.advance, "should_stop": asked}
