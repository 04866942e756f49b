"""The command line ``dim-data``: distil, evaluate, look at and describe generators."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from dim_data.cli.arguments import build_parser
from dim_data.cli.caching import run_cache
from dim_data.cli.endings import ended
from dim_data.cli.progress import ReadBar, SeedBar, StageBars, interruptible
from dim_data.cli.settings import parse_settings, settings_named
from dim_data.cli.shrinking import run_shrink
from dim_data.cli.streams import complain, say, usable_streams, written
from dim_data.cli.testing import SAMPLE, test_images
from dim_data.cli.values import read_evaluations
from dim_data.distillation import PRESETS, check_outside, distill, fit_to_images
from dim_data.format import MAX_BYTES, RESULT, WEIGHTS, check_writable, write_atomically
from dim_data.generator import Generator, describe, sample_png, save_grid
from dim_data.hub import Accuracy, agree, publish, pull, stated_accuracies
from dim_data.images import load_real
from dim_data.networks import CLASSIFIERS, is_first, joined, reached_sizes, usual_convnet
from dim_data.protocol import RECIPES, evaluate

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code, as :mod:`dim_data.cli.endings` has them.

    Started several times by a launcher, the processes share ``distill`` and ``evaluate``, and the first does all else.
    """
    with usable_streams(silent=not is_first()):
        return ended(partial(_run, argv))


def _run(argv: Sequence[str] | None) -> int:
    with written():  # what --help says
        args = build_parser(_RUNS).parse_args(argv)
    if args.command not in SHARED:
        return args.run(args) if is_first() else 0
    with joined(args.device) as ranks, ranks.together():
        code: int = args.run(args)
    return code


SHARED = ("distill", "evaluate")
TOLD = ("minutes", "refining_minutes", "images_shown")
"""What ``info`` says of a training."""


# Commands ------------------------------------------------------------------------------------------------


def _distill(args: argparse.Namespace) -> int:
    config = parse_settings(args.set, PRESETS[args.preset])
    if args.seed is not None:
        config = replace(config, seed=args.seed)
    check_outside(args.out, args.data)
    if not args.out.is_dir():
        check_writable(args.out, folder=True)  # before the data is read
    with ReadBar() as bar:
        options = {"root": args.data_root, "size": args.size, "sizes": reached_sizes(config.architecture)}
        data = load_real(args.data, **options, on_read=bar.advance)
    if args.mirror:
        data = replace(data, spec=replace(data.spec, mirror=True))
    config = fit_to_images(config, data.spec, len(data), keep=settings_named(args.set))
    with interruptible() as interrupted, StageBars() as bars:
        generator = distill(
            data,
            config=config,
            out=args.out,
            resume=not args.no_resume,
            overwrite=args.overwrite,
            max_minutes=args.max_minutes,
            device=args.device,
            on_step=bars.advance,
            should_stop=interrupted,
        )
    folder = args.out / RESULT
    facts = describe(generator, folder)
    if args.json:
        say(json.dumps(facts, indent=2))
    else:
        say(f"{folder}: {facts['bytes'] / 1e6:.2f} MB, {facts['classes']} classes, driven by {facts['source']}")
        say(f"use it: DistilledDataset({str(folder)!r}, ipc=50)    look at it: {args.out / 'samples.png'}")
    return 0


def _evaluate(args: argparse.Namespace) -> int:
    generator = Generator.from_pretrained(args.source, revision=args.revision, device=args.device)
    test, tested_on = test_images(generator, args.data_root, args.test, args.size)
    stated: tuple[Accuracy, ...] = ()
    if generator.folder and all(getattr(args, n) is None for n in ("classifier", "recipe", "ipc", "epochs", "seeds")):
        stated = stated_accuracies(generator.folder)
    if args.checkpoint is not None and len(stated) > 1:
        raise ValueError(
            f"--checkpoint keeps one evaluation, and the card states {len(stated)}: choose by --classifier, --recipe, "
            f"--ipc, --epochs and --seeds"
        )
    results = []
    for cell in stated or (None,):
        if cell and (cell.classifier not in CLASSIFIERS or cell.recipe not in RECIPES):
            complain(f"passed over, no such classifier or recipe here: {str(cell)!r}")
            continue
        # With no file to save in, Ctrl-C stops at once.
        with interruptible() if args.checkpoint else nullcontext() as interrupted, SeedBar() as bar:
            result = evaluate(
                generator,
                test,
                cell.classifier if cell else args.classifier,
                cell.recipe if cell else args.recipe or "tuned",
                ipc=cell.ipc if cell else args.ipc or 10,
                epochs=cell.epochs if cell else args.epochs or 1000,
                seeds=cell.seeds if cell else args.seeds or (0, 1, 2),
                checkpoint=args.checkpoint,
                device=args.device,
                on_step=bar.advance,
                should_stop=interrupted,
            )
        facts = {"source": args.source, **asdict(result), "mean": result.mean, "std": result.std}
        facts |= {"test_images": len(test), "tested_on": tested_on}
        line = str(result)
        if cell:
            sample = len(test) if tested_on == SAMPLE != cell.tested_on else None
            facts |= {"stated": cell.mean, "agrees": agree(cell, result, sample)}
            line += f"; the card states {cell.mean:.2%}: {'agrees' if facts['agrees'] else 'DOES NOT AGREE'}"
        results.append(facts)
        if not args.json:
            say(line)
    if args.json:
        say(json.dumps(results if stated else results[0], indent=2))
    return int(not results or not all(facts.get("agrees", True) for facts in results))


def _preview(args: argparse.Namespace) -> int:
    check_writable(args.out)
    generator = Generator.from_pretrained(args.source, revision=args.revision)
    save_grid(generator, args.out, columns=args.columns, max_classes=args.max_classes, scale=args.scale, seed=args.seed)
    say(args.out)
    return 0


def _info(args: argparse.Namespace) -> int:
    generator = Generator.from_pretrained(args.source, revision=args.revision)
    facts = describe(generator, generator.folder or Path())
    if args.json:
        say(json.dumps(facts, indent=2))
        return 0
    spec, training = generator.spec, facts["training"]
    rows = {
        "images": f"{spec.size}x{spec.size} {'grey' if spec.channels == 1 else 'RGB'}, as {spec.name}",
        "classes": f"{spec.num_classes}: {', '.join(spec.classes[:10])}{', ...' if spec.num_classes > 10 else ''}",
        "latents": facts["latents"],
        "labels": "soft ones too: soft_labels=True" if facts["soft_labels"] else "",
        "network": f"{facts['architecture']}, {facts['parameters'] / 1e6:.2f} M parameters",
        "file": f"{facts['bytes'] / 1e6:.2f} MB in {facts['folder']}",
        "mean, std": f"{spec.mean}, {spec.std}",
        "commit": generator.revision,
        # From a file that anybody may have written: repr() leaves nothing that a terminal would obey.
        "training": ", ".join(f"{name} {training[name]!r}" for name in TOLD if name in training),
    }
    for name, value in rows.items():
        if value:
            say(f"{name:<10} {value}")
    for accuracy in facts["accuracies"]:
        say(f"{'card':<10} {str(Accuracy(**accuracy))!r}")
    return 0


def _pull(args: argparse.Namespace) -> int:
    if args.out is not None:
        check_writable(args.out, folder=True)
    folder, commit = pull(args.repo, revision=args.revision)
    Generator.from_pretrained(folder)  # or say what is wrong with it
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        replaced = (args.out / WEIGHTS).is_file()
        lost = [name for name in MAX_BYTES if (folder / name).is_file() and (args.out / name).exists()]
        if lost and not replaced:
            raise FileExistsError(f"{args.out} has {' and '.join(lost)} of something else: choose another --out")
        for name in MAX_BYTES:
            if (folder / name).is_file():
                write_atomically(args.out / name, partial(shutil.copyfile, folder / name))
            elif replaced:  # it tells of what lay there before
                (args.out / name).unlink(missing_ok=True)
        folder = args.out
    facts = {"folder": str(folder), "commit": commit}
    say(json.dumps(facts, indent=2) if args.json else f"{folder}\ncommit {commit}")
    return 0


def _push(args: argparse.Namespace) -> int:
    folder = args.folder / RESULT if (args.folder / RESULT).is_dir() else args.folder
    done = publish(
        folder,
        args.repo,
        picture=sample_png(Generator.from_pretrained(folder)),
        private=args.private,
        revision=args.revision,
        create_pr=args.create_pr,
        commit_message=args.message,
        evaluations=[one for path in args.evaluations for one in read_evaluations(path)],
        license=args.license,
        overwrite_card=args.overwrite_card,
    )
    if done.kept_card and not args.json:
        complain("its README.md was edited by hand and stays; --overwrite-card replaces it")
    say(json.dumps(asdict(done), indent=2) if args.json else done.url)
    return 0


def _demo(args: argparse.Namespace) -> int:
    generator = Generator.from_pretrained(args.source, device=args.device)
    test, _ = test_images(generator, args.data_root, args.test, args.size)
    size = describe(generator, generator.folder or Path())["bytes"]
    convnet = usual_convnet(generator.spec).replace("convnet", "ConvNet-")
    say(f"training {convnet} on pictures from a generator of {size / 1e6:.1f} MB; no real image is read")
    with SeedBar() as bar:
        options = {"ipc": 10, "epochs": args.epochs, "seeds": (0,), "device": args.device}
        recipe = "muon_soft" if generator.config.soft_labels else "muon"
        result = evaluate(generator, test, recipe=recipe, **options, on_step=bar.advance)
    say(f"accuracy on {len(test)} real test images: {result.mean:.1%} after {result.images_shown} synthetic ones")
    return 0


_RUNS = {
    "cache": run_cache,
    "demo": _demo,
    "distill": _distill,
    "evaluate": _evaluate,
    "info": _info,
    "preview": _preview,
    "pull": _pull,
    "push": _push,
    "shrink": run_shrink,
}


if __name__ == "__main__":
    sys.exit(main())
