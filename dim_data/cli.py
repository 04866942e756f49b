"""The command line ``dim-data``: distil, evaluate, look at and describe generators.

Exit codes: 0 done; 1 it could not be done, and the last line on stderr says why; 2 wrong usage; 3 stopped by its
time budget, and the same command resumes it; 130 stopped by Ctrl-C, likewise.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dim_data import __version__
from dim_data.classifiers import CLASSIFIERS
from dim_data.distillation import distill
from dim_data.evaluation import ClassifierStep, Evaluation, evaluate
from dim_data.figures import save_grid
from dim_data.generator import Generator
from dim_data.hub import WEIGHTS
from dim_data.loops import StageStep
from dim_data.presets import PRESETS, DistillConfig
from dim_data.real import LabelledImages, load_real
from dim_data.recipes import RECIPES
from dim_data.runs import RESULT, TRAINING_CONFIG, StoppedError
from dim_data.sample import bundled_test_sample
from dim_data.specs import KNOWN_SPECS
from dim_data.storage import bundled_names, resolve

__all__ = ["main"]

DEMO_EPOCHS = 400


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    args = _parser().parse_args(argv)
    try:
        code: int = args.run(args)
    except StoppedError as error:
        print(f"dim-data: {error}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        print("dim-data: stopped by Ctrl-C", file=sys.stderr)
        return 130
    except (OSError, ValueError, TypeError, RuntimeError, ImportError) as error:
        print(f"dim-data: {error}", file=sys.stderr)
        return 1
    return code


# Commands ------------------------------------------------------------------------------------------------


def _distill(args: argparse.Namespace) -> int:
    config = PRESETS[args.preset]
    changes = _settings(args.set)
    if args.seed is not None:
        changes["seed"] = args.seed
    if changes:
        options = {**config.options, **changes.pop("options", {})}
        config = DistillConfig.from_dict({**config.to_dict(), "options": options, **changes})
    data = load_real(args.data, root=args.data_root)
    if args.mirror:
        data = replace(data, spec=replace(data.spec, mirror=True))
    with _interruptible() as interrupted, _StageBars() as bars:
        try:
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
        except StoppedError as error:
            if not interrupted():
                raise
            print(f"dim-data: {error}", file=sys.stderr)
            return 130
    folder = args.out / RESULT
    facts = _describe(generator, folder)
    if args.json:
        print(json.dumps(facts, indent=2))
    else:
        print(f"{folder}: {facts['bytes'] / 1e6:.2f} MB, {facts['classes']} classes, driven by {facts['source']}")
        print(f"use it: DistilledDataset({str(folder)!r}, ipc=50)    look at it: {args.out / 'samples.png'}")
    return 0


def _evaluate(args: argparse.Namespace) -> int:
    folder, _ = resolve(args.source, args.revision, None)
    generator = Generator.from_pretrained(folder, device=args.device)
    test = _test_images(generator, args.data_root, args.test, args.json)
    result = _with_bar(
        generator, test, args.classifier, args.recipe, args.ipc, args.epochs, tuple(args.seeds), args.device
    )
    if args.json:
        facts = {"source": args.source, **asdict(result), "mean": result.mean, "std": result.std}
        print(json.dumps({**facts, "test_images": len(test)}, indent=2))
    else:
        print(result)
    return 0


def _preview(args: argparse.Namespace) -> int:
    generator = Generator.from_pretrained(args.source, revision=args.revision)
    save_grid(generator, args.out, columns=args.columns, max_classes=args.max_classes, scale=args.scale, seed=args.seed)
    print(args.out)
    return 0


def _info(args: argparse.Namespace) -> int:
    folder, commit = resolve(args.source, args.revision, None)
    generator = Generator.from_pretrained(folder)
    facts = {**_describe(generator, folder), "revision": commit}
    if args.json:
        print(json.dumps(facts, indent=2))
        return 0
    spec = generator.spec
    rows = {
        "images": f"{spec.size}x{spec.size} {'grey' if spec.channels == 1 else 'RGB'}, as {spec.name}",
        "classes": f"{spec.num_classes}: {', '.join(spec.classes[:10])}{', ...' if spec.num_classes > 10 else ''}",
        "latents": generator.config.source + (f", {facts['codes']} stored" if facts["codes"] else ""),
        "network": f"{facts['architecture']}, {facts['parameters'] / 1e6:.2f} M parameters",
        "file": f"{facts['bytes'] / 1e6:.2f} MB, {folder / WEIGHTS}",
        "mean, std": f"{spec.mean}, {spec.std}",
    }
    if commit:
        rows["commit"] = commit
    if "training" in facts:
        training = facts["training"]
        rows["training"] = f"{training['minutes']} minutes on {training['device']}, {training['images_shown']} images"
    for name, value in rows.items():
        print(f"{name:<10} {value}")
    return 0


def _demo(args: argparse.Namespace) -> int:
    generator = Generator.from_pretrained("cifar10", device=args.device)
    test = _test_images(generator, args.data_root, None, quiet=False)
    print(f"training ConvNet-3 on pictures from a generator of {generator.nbytes / 1e6:.1f} MB; no real image is read")
    result = _with_bar(generator, test, "convnet3", "tuned", 10, args.epochs, (0,), args.device)
    print(f"accuracy on {len(test)} real test images: {result.mean:.1%} after {result.images_shown} synthetic ones")
    return 0


# What they share -----------------------------------------------------------------------------------------


def _test_images(generator: Generator, root: str | None, test: str | None, quiet: bool) -> LabelledImages:
    """The real test images for a generator: ``--test``, else the known set under the root, else the sample."""
    name = generator.spec.name
    if test is not None:
        return load_real(test, generator.spec, split="test", root=root)
    if root is not None and name in KNOWN_SPECS:
        return load_real(name, split="test", root=root)
    if name == "cifar10":
        if not quiet:
            print("testing on the bundled 1000 real images; --data-root DIR tests on all 10000", file=sys.stderr)
        return bundled_test_sample()
    raise FileNotFoundError(
        f"real test images are needed: --test FILE (an .npz or an image folder)"
        f"{f', or --data-root DIR with the files of {name}' if name in KNOWN_SPECS else ''}"
    )


def _with_bar(
    generator: Generator,
    test: LabelledImages,
    classifier: str,
    recipe: str,
    ipc: int,
    epochs: int,
    seeds: tuple[int, ...],
    device: str | None,
) -> Evaluation:
    bar: tqdm[Any] = tqdm(disable=None, unit="step", leave=False)

    def advance(record: ClassifierStep) -> None:
        if record.step == 1:
            bar.reset(record.steps)
            bar.set_description(f"seed {record.seed}")
        bar.update()
        if record.step % 20 == 0:
            bar.set_postfix(loss=f"{record.loss:.3f}", refresh=False)

    with bar:
        return evaluate(
            generator, test, classifier, recipe, ipc=ipc, epochs=epochs, seeds=seeds, device=device, on_step=advance
        )


def _describe(generator: Generator, folder: Path) -> dict[str, Any]:
    config, spec = generator.config, generator.spec
    facts: dict[str, Any] = {
        "name": spec.name,
        "architecture": config.architecture,
        "source": config.source,
        "codes": config.codes,
        "parameters": sum(p.numel() for p in generator.parameters()),
        "bytes": (folder / WEIGHTS).stat().st_size,
        "classes": spec.num_classes,
        "size": spec.size,
        "channels": spec.channels,
        "folder": str(folder),
    }
    training = folder / TRAINING_CONFIG
    if training.is_file():
        facts["training"] = json.loads(training.read_text(encoding="utf-8"))
    return facts


def _settings(pairs: Sequence[str]) -> dict[str, Any]:
    """``["matching_steps=10", "pool_ages=1,2", "options.width=96"]`` as fields of a :class:`DistillConfig`."""
    known = {f.name for f in fields(DistillConfig)}
    settings: dict[str, Any] = {}
    for pair in pairs:
        name, found, text = pair.partition("=")
        field, _, option = name.partition(".")
        if not found or field not in known or bool(option) != (field == "options"):
            raise ValueError(
                f"--set wants NAME=VALUE, got {pair!r}; names: {', '.join(sorted(known - {'options'}))}, options.OPTION"
            )
        is_tuple = isinstance(getattr(DistillConfig, field, None), tuple)
        value = tuple(_value(part) for part in text.split(",") if part) if is_tuple else _value(text)
        if option:
            settings.setdefault("options", {})[option] = value
        else:
            settings[field] = value
    return settings


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


class _StageBars:
    """One progress bar for each stage, on a terminal only."""

    def __init__(self) -> None:
        self.bar: tqdm[Any] | None = None
        self.stage = ""

    def advance(self, record: StageStep) -> None:
        if self.bar is None or record.stage != self.stage:
            self._close()
            self.stage = record.stage
            self.bar = tqdm(
                total=record.steps, initial=record.step - 1, desc=record.stage, unit="step", disable=None, leave=True
            )
        self.bar.update()
        if record.step % 20 == 0:
            self.bar.set_postfix({k: f"{v:.3f}" for k, v in record.losses.items()}, refresh=False)

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()

    def __enter__(self) -> _StageBars:
        return self

    def __exit__(self, *error: object) -> None:
        self._close()


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Let the first Ctrl-C (or SIGTERM) ask for a clean stop; the second one is as usual."""
    asked: list[int] = []

    def note(number: int, _: Any) -> None:
        asked.append(number)
        for again in before:
            signal.signal(again, before[again])
        print("\nfinishing this step and saving; once more to stop at once", file=sys.stderr)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# Arguments -----------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dim-data",
        description="Distilled datasets: image sets in a small generator, for training as if with the real files.",
        epilog="dim-data COMMAND --help explains each. Start with: dim-data demo",
    )
    parser.add_argument("--version", action="version", version=f"dim-data {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, run: Callable[[argparse.Namespace], int], summary: str, more: str) -> Any:
        sub = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog=more,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(run=run)
        return sub

    def source(sub: Any) -> None:
        sub.add_argument(
            "source", help=f"a folder, a bundled name ({', '.join(bundled_names())}) or a Hub id like user/repo"
        )
        sub.add_argument("--revision", help="branch, tag or commit of a Hub id")

    def data_root(sub: Any) -> None:
        sub.add_argument(
            "--data-root",
            metavar="DIR",
            default=os.environ.get("DIM_DATA_ROOT"),
            help="where the files of cifar10, mnist, fashion_mnist or svhn are: NAME.npz, or as torchvision keeps "
            "them (default: the environment variable DIM_DATA_ROOT)",
        )

    def device(sub: Any) -> None:
        sub.add_argument("--device", help="cpu or cuda (default: cuda where there is one)")

    sub = command(
        "demo",
        _demo,
        "train ConvNet-3 on the bundled CIFAR-10 generator and test it on real images",
        "example:\n  dim-data demo",
    )
    sub.add_argument("--epochs", type=_positive, default=DEMO_EPOCHS, help="of 100 pictures (default: %(default)s)")
    data_root(sub)
    device(sub)

    sub = command(
        "distill",
        _distill,
        "make a generator from labelled images",
        "examples:\n"
        "  dim-data distill photos/ --out runs/photos              # one sub-folder of images per class\n"
        "  dim-data distill pathmnist.npz --out runs/path --max-minutes 30\n"
        "  dim-data distill cifar10 --data-root DIR --out runs/c10 --set matching_steps=6000 --set options.width=96\n\n"
        "Killed, stopped by --max-minutes (exit code 3) or by Ctrl-C (130), the same command goes on where it was.",
    )
    sub.add_argument("data", help=f"an image folder, an .npz with train_images and train_labels, or {_either()}")
    sub.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder of this run")
    sub.add_argument("--preset", choices=sorted(PRESETS), default="default", help="(default: %(default)s)")
    sub.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change a DistillConfig field")
    sub.add_argument("--mirror", action="store_true", help="a mirrored image is of the same class: augment by flips")
    sub.add_argument("--seed", type=int, help="of everything random (default: the preset's)")
    sub.add_argument("--max-minutes", type=float, metavar="M", help="stop after so long, resumably")
    sub.add_argument("--no-resume", action="store_true", help="refuse to go on with a run that --out holds")
    sub.add_argument("--overwrite", action="store_true", help="begin anew in a folder that holds a run")
    sub.add_argument("--json", action="store_true", help="describe the result as JSON")
    data_root(sub)
    device(sub)

    sub = command(
        "evaluate",
        _evaluate,
        "train classifiers on a generator and test them on real images",
        "example:\n  dim-data evaluate cifar10 --data-root DIR --ipc 10 --seeds 0 1 2\n\n"
        "ipc is the number of images per class in an epoch; a training is 1000 epochs. Accuracy is that of the last\n"
        "step. Without --data-root or --test, CIFAR-10 is tested on the bundled sample of 1000 real images.",
    )
    source(sub)
    sub.add_argument("--test", metavar="FILE", help="real test images: an .npz or an image folder")
    sub.add_argument("--classifier", choices=sorted(CLASSIFIERS), default="convnet3", help="(default: %(default)s)")
    sub.add_argument("--recipe", choices=sorted(RECIPES), default="tuned", help="(default: %(default)s)")
    sub.add_argument("--ipc", type=_positive, default=10, help="images per class in an epoch (default: %(default)s)")
    sub.add_argument("--epochs", type=_positive, default=1000, help="(default: %(default)s)")
    sub.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one training each (default: 0 1 2)")
    sub.add_argument("--json", action="store_true", help="print the result as JSON")
    data_root(sub)
    device(sub)

    sub = command(
        "preview",
        _preview,
        "write a PNG with samples of each class, one class a row",
        "example:\n  dim-data preview cifar10 --out preview.png",
    )
    source(sub)
    sub.add_argument("--out", type=Path, default=Path("preview.png"), metavar="PNG", help="(default: %(default)s)")
    sub.add_argument("--columns", type=_positive, default=10, help="samples of each class (default: %(default)s)")
    sub.add_argument("--max-classes", type=_positive, default=10, help="rows at most (default: %(default)s)")
    sub.add_argument("--scale", type=_positive, default=2, help="enlargement (default: %(default)s)")
    sub.add_argument("--seed", type=int, default=0, help="chooses the samples (default: %(default)s)")

    sub = command(
        "info",
        _info,
        "say what a generator is: images, classes, latents, bytes, training",
        "example:\n  dim-data info cifar10 --json",
    )
    source(sub)
    sub.add_argument("--json", action="store_true", help="print it as JSON")
    return parser


def _either() -> str:
    *names, last = sorted(KNOWN_SPECS)
    return f"{', '.join(names)} or {last} with --data-root"


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


if __name__ == "__main__":
    sys.exit(main())
