"""The arguments of the command line, and what ``--help`` says."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dim_data import __version__
from dim_data.cli.values import minutes, place, positive, seed
from dim_data.distillation import PRESETS, SLIM_STEPS
from dim_data.generator import bundled_names
from dim_data.images import KNOWN_SPECS
from dim_data.networks import CLASSIFIERS
from dim_data.protocol import RECIPES

__all__ = ["DEMO_EPOCHS", "build_parser"]

DEMO_EPOCHS = 400
OTHERS = "; of other sets, such as eurosat, name the test images by --test"
DTYPES = ("int4", "int8", "float16", "bfloat16", "float32")


def build_parser(runs: Mapping[str, Callable[[argparse.Namespace], int]]) -> argparse.ArgumentParser:
    """The parser of all commands; the namespace's ``run`` is the function of the command, out of ``runs``."""
    parser = argparse.ArgumentParser(
        prog="dim-data",
        description="Distilled datasets: image sets in a small generator, for training as if with the real files.",
        epilog="dim-data COMMAND --help explains each. Start with: dim-data demo",
    )
    parser.add_argument("--version", action="version", version=f"dim-data {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, summary: str, more: str) -> Any:
        sub = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog=more,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(run=runs[name], command=name)
        return sub

    def source(sub: Any) -> None:
        sub.add_argument(
            "source", help=f"a folder, a bundled name ({', '.join(bundled_names())}) or a Hub id like user/repo"
        )
        sub.add_argument("--revision", help="branch, tag or commit of a Hub id")

    def data_root(sub: Any, more: str = "") -> None:
        sub.add_argument(
            "--data-root",
            metavar="DIR",
            default=os.environ.get("DIM_DATA_ROOT") or None,
            help="where the files of cifar10, mnist, fashion_mnist or svhn are: NAME.npz, or as torchvision keeps "
            f"them{more} (default: the environment variable DIM_DATA_ROOT)",
        )

    def tested_on(sub: Any) -> None:
        sub.add_argument("--test", metavar="PATH", help="real test images: an .npz or an image folder")
        sub.add_argument("--size", type=positive, metavar="PIXELS", help="resize and crop every test image")

    def device(sub: Any) -> None:
        sub.add_argument("--device", help="cpu or cuda (default: cuda where there is one)")

    sub = command(
        "demo",
        "train a ConvNet on a bundled generator and test it on real images",
        "examples:\n"
        "  dim-data demo                                          # stored codes, CIFAR-10\n"
        "  dim-data demo cifar10_noise                            # pictures from noise\n"
        "  dim-data demo fashion_mnist_noise --data-root DIR      # only for CIFAR-10 are test images bundled",
    )
    sub.add_argument("source", nargs="?", default="cifar10", help="what to train on (default: %(default)s)")
    sub.add_argument(
        "--epochs", type=positive, default=DEMO_EPOCHS, help="epochs of ten pictures a class (default: %(default)s)"
    )
    tested_on(sub)
    data_root(sub, OTHERS)
    device(sub)

    sub = command(
        "distill",
        "make a generator from labelled images",
        "examples:\n"
        "  dim-data distill photos/ --size 64 --out runs/photos    # one sub-folder of images per class\n"
        "  dim-data distill pathmnist.npz --out runs/path --max-minutes 30\n"
        "  dim-data distill cifar10 --data-root DIR --out runs/c10 --set matching.steps=6000 --set options.width=96\n\n"
        "Killed, stopped by --max-minutes (exit code 3) or by Ctrl-C (130), the same command goes on where it was, "
        "without\n--overwrite or --no-resume.",
    )
    sub.add_argument("data", help=f"an image folder, an .npz with train_images and train_labels, or {_either()}")
    sub.add_argument("--out", type=place, required=True, metavar="DIR", help="the folder of this run")
    sub.add_argument("--preset", choices=sorted(PRESETS), default="default", help="(default: %(default)s)")
    sub.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="change a field of DistillConfig, such as matching.steps; run.json in DIR has the values of all fields",
    )
    sub.add_argument("--size", type=positive, metavar="PIXELS", help="resize and crop every image: photos need it")
    sub.add_argument("--mirror", action="store_true", help="a mirrored image is of the same class: augment by flips")
    sub.add_argument("--seed", type=seed, help="seed of everything random (default: the preset's)")
    sub.add_argument("--max-minutes", type=minutes, metavar="M", help="stop after so long, resumably")
    sub.add_argument(
        "--no-resume", action="store_true", help="refuse a folder that holds a run: to go on, leave it out"
    )
    sub.add_argument(
        "--overwrite",
        action="store_true",
        help="begin anew in a folder that holds a run, which is lost: to go on, leave it out",
    )
    sub.add_argument("--json", action="store_true", help="describe the result as JSON")
    data_root(sub)
    device(sub)

    sub = command(
        "evaluate",
        "train classifiers on a generator and test them on real images",
        "examples:\n"
        "  dim-data evaluate cifar10 --data-root DIR --ipc 10 --seeds 0 1 2\n"
        "  dim-data evaluate user/repo --data-root DIR        # measure again what its card states, and compare\n\n"
        "ipc is the number of images per class in an epoch; a training is 1000 epochs. Accuracy is that of the last\n"
        "step. With none of --classifier, --recipe, --ipc, --epochs and --seeds, every accuracy that the generator's\n"
        "card states is measured again; if one does not agree, the exit code is 1. Without --data-root or --test,\n"
        "CIFAR-10 is tested on the bundled sample of 1000 real images.",
    )
    source(sub)
    tested_on(sub)
    sub.add_argument(
        "--classifier",
        choices=sorted(CLASSIFIERS),
        help="(default: convnet3; above 32 pixels convnet4, above 64 convnet5)",
    )
    sub.add_argument("--recipe", choices=sorted(RECIPES), help="(default: tuned)")
    sub.add_argument("--ipc", type=positive, help="images per class in an epoch (default: 10)")
    sub.add_argument("--epochs", type=positive, help="(default: 1000)")
    sub.add_argument("--seeds", type=seed, nargs="+", help="one training each (default: 0 1 2)")
    sub.add_argument(
        "--checkpoint", type=place, metavar="FILE", help="keep what is done there: killed, the same command goes on"
    )
    sub.add_argument("--json", action="store_true", help="print the result as JSON")
    data_root(sub, OTHERS)
    device(sub)

    sub = command(
        "preview",
        "write a PNG with samples of each class, one class a row",
        "example:\n  dim-data preview cifar10 --out preview.png",
    )
    source(sub)
    sub.add_argument("--out", type=place, default=Path("preview.png"), metavar="PNG", help="(default: %(default)s)")
    sub.add_argument("--columns", type=positive, default=10, help="samples of each class (default: %(default)s)")
    sub.add_argument("--max-classes", type=positive, default=10, help="rows at most (default: %(default)s)")
    sub.add_argument("--scale", type=positive, help="enlargement (default: 2 up to 32 pixels, else 1)")
    sub.add_argument("--seed", type=seed, default=0, help="chooses the samples (default: %(default)s)")

    sub = command(
        "info",
        "say what a generator is: images, classes, latents, bytes, training",
        "example:\n  dim-data info cifar10 --json",
    )
    source(sub)
    sub.add_argument("--json", action="store_true", help="print it as JSON")

    sub = command(
        "shrink",
        "make a smaller generator of another",
        "examples:\n"
        "  dim-data shrink cifar10 --codes 16000 --out small        # as many of its codes, every class its share\n"
        "  dim-data shrink cifar10 --noise --out noise              # none: a Gaussian of each class's codes\n"
        "  dim-data shrink cifar10 --noise --soft-labels --out noise    # and a teacher, trained on its pictures\n"
        "  dim-data shrink runs/photos/generator --out small        # all of them, and weights in eight bits\n"
        "  dim-data shrink cifar10 --dtype int4 --no-soft-labels --out small    # four bits, classes only\n"
        "  dim-data shrink cifar10 --set options.width=80 --set options.top_width=8 --out fast    # paints faster\n\n"
        "What it costs in accuracy, dim-data evaluate says. A faster decoder is trained to paint the same pictures\n"
        "under a teacher that is trained on them first: half an hour. Stopped by Ctrl-C, or killed, the same\n"
        "command goes on.",
    )
    source(sub)
    sub.add_argument("--out", type=place, required=True, metavar="DIR", help="a new or empty folder")
    kept = sub.add_mutually_exclusive_group()
    kept.add_argument("--codes", type=positive, metavar="N", help="how many codes to keep (default: all)")
    kept.add_argument("--noise", action="store_true", help="keep none: let noise drive the decoder")
    sub.add_argument("--rank", type=positive, help="with --noise: rank of the Gaussians (default: 128)")
    sub.add_argument(
        "--soft-labels",
        action=argparse.BooleanOptionalAction,
        help="with --noise: train a teacher to keep beside it; --no-soft-labels: leave out those beside codes",
    )
    sub.add_argument(
        "--epochs",
        type=positive,
        help="with --soft-labels or --set: epochs of the teacher's training, at ipc 10 (default: 1000)",
    )
    sub.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="options.NAME=N",
        help="train a decoder that differs in this option of its architecture",
    )
    sub.add_argument("--steps", type=positive, help=f"with --set: steps of that training (default: {SLIM_STEPS})")
    sub.add_argument(
        "--dtype",
        choices=DTYPES,
        default="int8",
        help="format of the weights on disk; what lies in 4 bits already stays so under int8 (default: %(default)s)",
    )
    sub.add_argument("--seed", type=seed, default=0, help="chooses the codes, teaches (default: %(default)s)")
    sub.add_argument("--json", action="store_true", help="describe the result as JSON")
    device(sub)

    sub = command(
        "cache",
        "list the image sets that are kept because they are too large for memory, or remove them",
        "examples:\n"
        "  dim-data cache\n"
        "  dim-data cache --remove photos\n\n"
        "A set of more than 1 GiB of pixels (DIM_DATA_MAP_ABOVE bytes) is decoded once, into the folder\n"
        "DIM_DATA_CACHE or ~/.cache/dim_data, and read from there. Removed, it is decoded again when it is needed.",
    )
    removed = sub.add_mutually_exclusive_group()
    removed.add_argument("--remove", nargs="+", metavar="NAME", help="sets to remove, by their names or their folders'")
    removed.add_argument("--remove-all", action="store_true", help="remove all of them")
    sub.add_argument("--json", action="store_true", help="print what is kept as JSON")

    sub = command(
        "pull",
        "fetch a generator from the Hugging Face Hub into its cache",
        "example:\n  dim-data pull user/repo --revision v1.0 --out generators/repo\n\n"
        "Private repositories need a token: the one that `hf auth login` saved, or HF_TOKEN.",
    )
    sub.add_argument("repo", help="a Hub id like user/repo")
    sub.add_argument("--revision", help="branch, tag or commit (default: main)")
    sub.add_argument("--out", type=place, metavar="DIR", help="copy its files there, too, in place of those of another")
    sub.add_argument("--json", action="store_true", help="print folder and commit as JSON")

    sub = command(
        "push",
        "upload a generator to the Hugging Face Hub, with a card and a picture",
        "examples:\n"
        "  dim-data evaluate runs/photos/generator --test photos_test/ --json > result.json\n"
        "  dim-data push runs/photos user/photos-distilled --evaluations result.json --license mit\n\n"
        "The token is the one that `hf auth login` saved, or HF_TOKEN. A README.md edited by hand is kept.",
    )
    sub.add_argument("folder", type=place, help="a generator's folder, or the folder of a run of dim-data distill")
    sub.add_argument("repo", help="a Hub id like user/repo, made if there is none")
    sub.add_argument("--evaluations", type=place, nargs="+", default=[], metavar="JSON", help="from evaluate --json")
    sub.add_argument("--private", action="store_true", default=None, help="make a new repository private")
    sub.add_argument("--revision", help="the branch to commit to (default: main)")
    sub.add_argument("--create-pr", action="store_true", help="open a pull request instead")
    sub.add_argument("--message", default="Upload generator with dim_data", help="of the commit (default: %(default)s)")
    sub.add_argument("--license", help="a licence of the Hub's list, such as mit")
    sub.add_argument("--overwrite-card", action="store_true", help="replace a README.md although edited by hand")
    sub.add_argument("--json", action="store_true", help="print the commit's address as JSON")
    return parser


def _either() -> str:
    *names, last = sorted(KNOWN_SPECS)
    return f"{', '.join(names)} or {last} with --data-root"
