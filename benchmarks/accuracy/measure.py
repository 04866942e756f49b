"""One cell of the tables: train classifiers on one source, test them on real images, write JSON.

    python benchmarks/reproduce.py cifar10 --data-root DIR                         # the bundled generator
    python benchmarks/reproduce.py cifar10 --row real --data-root DIR              # real images, same protocol
    python benchmarks/reproduce.py cifar10 --row real --recipe soft --data-root DIR     # ... and the same soft labels
    python benchmarks/reproduce.py cifar10 --row before --source runs/cifar10/before_matching --data-root DIR
    python benchmarks/reproduce.py cifar10 --row stored --data-root DIR            # as many JPEGs as its bytes hold
    python benchmarks/reproduce.py cifar10 --source cifar10_noise --data-root DIR
    python benchmarks/reproduce.py cifar10 --row refreshed --source cifar10_noise --refresh 0.1 --data-root DIR

Each seed is written when it is done; a second call with more seeds adds to the file. Killed within a seed, the same
call goes on from a checkpoint beside the file. Under torchrun each rank takes the next seed. Nothing is chosen here:
the accuracy is that of the last step, on all test images: the official ones, but of EuroSAT, which has none, and of an
SVHN whose file holds others. The result says so.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from accuracy.baselines import stored_images, with_soft_labels
from accuracy.cells import RESULTS, result_path, runs_in, weights_of
from accuracy.machines import sat_on
from accuracy.sets import DATASETS, convnet_of, real_images, unofficial
from dim_data import Generator, __version__, evaluate
from dim_data.format import write_json
from dim_data.generator import read_training
from dim_data.images import LabelledImages, held
from dim_data.networks import Ranks, WorkQueue, own_device
from dim_data.protocol import RECIPES
from options import HelpFormatter

ROWS = ("generator", "refreshed", "before", "real", "stored")


def read_arguments(words: Sequence[str]) -> argparse.Namespace:
    """The cell that ``words`` ask for."""
    parser = argparse.ArgumentParser("reproduce.py", description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("dataset", help=f"{', '.join(DATASETS)}; or a command: missing, refine or prior")
    parser.add_argument("--row", choices=ROWS, default="generator", help="what is trained on")
    parser.add_argument("--source", help="generator: bundled name or folder (default: the dataset's name)")
    parser.add_argument("--classifier", help="default: the ConvNet that the field uses at this size")
    parser.add_argument("--recipe", choices=list(RECIPES), default="tuned", help="how it is trained")
    parser.add_argument("--ipc", type=int, default=10, help="images of each class in an epoch")
    parser.add_argument("--epochs", type=int, default=1000, help="epochs of each training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one training each")
    parser.add_argument("--refresh", type=float, default=0.1, help="of --row refreshed: the share new in each epoch")
    parser.add_argument("--quality", type=int, default=50, help="JPEG quality of --row stored")
    parser.add_argument("--data-root", default=os.environ.get("DIM_DATA_ROOT"), help="default: DIM_DATA_ROOT")
    parser.add_argument("--device", help="default: CUDA where there is one")
    parser.add_argument("--out", type=Path, default=RESULTS, help="a folder (default: accuracy/results)")
    args = parser.parse_args(words)
    args.classifier = args.classifier or convnet_of(args.dataset)
    return args


def training_images(
    args: argparse.Namespace, device: torch.device
) -> tuple[Generator | LabelledImages, dict[str, Any]]:
    """What the classifiers are trained on, and what the result file says of it."""
    source = args.source or args.dataset
    if args.row in ("generator", "refreshed", "before"):
        generator = Generator.from_pretrained(source, device=device)
        # Of a run's before_matching/, the run's name says which generator it became.
        name = (Path(source).resolve().parent if args.row == "before" else Path(source)).name
        weights, training = weights_of(generator), read_training(generator.folder or Path())
        facts = {"source": name, "latents": generator.config.source, "bytes": weights.stat().st_size}
        facts |= {"refresh": args.refresh} if args.row == "refreshed" else {}
        return generator, facts | ({"training_minutes": training["minutes"]} if "minutes" in training else {})
    real = real_images(args.dataset, "train", args.data_root)
    if args.row == "stored":
        budget = weights_of(Generator.from_pretrained(source)).stat().st_size
        stored, size = stored_images(real, budget, args.quality)
        facts = {"source": Path(source).name, "bytes": size}
        return stored, facts | {"stored_images": len(stored), "jpeg_quality": args.quality}
    if RECIPES[args.recipe].soft_labels:
        real = with_soft_labels(real, Generator.from_pretrained(source))
        return real, {"source": args.dataset, "soft_labels_of": Path(source).name}
    return real, {"source": args.dataset}


def main(words: Sequence[str], ranks: Ranks | None = None) -> Path:
    """Measure one cell, of several ranks some of its seeds, and return the path of its result file."""
    args, ranks = read_arguments(words), ranks or Ranks.present()
    device, queue = own_device(args.device, ranks), WorkQueue(ranks, "reproduce", {"words": list(words)})
    test = real_images(args.dataset, "test", args.data_root)
    train, facts = training_images(args, device)
    cell = {name: getattr(args, name) for name in ("dataset", "row", "classifier", "recipe", "ipc", "epochs")} | facts
    name = cell["source"] + (f"_{cell['refresh']:g}" if "refresh" in cell else "")
    said = unofficial(args.dataset, len(test))
    cell |= {"tested_on": said} if said else {}
    path = result_path(args.out, args.dataset, args.row, name, args.classifier, args.recipe, args.ipc)
    if path.exists() and json.loads(path.read_text(encoding="utf-8")).get("tested_on", "") != said:
        raise ValueError(f"{path} is of other test images than these {len(test)}: choose another --out")
    args.out.mkdir(parents=True, exist_ok=True)
    for seed in args.seeds:
        if str(seed) in runs_in(path) or not queue.take(str(seed)):
            continue
        checkpoint = path.with_name(f"{path.stem}-seed{seed}.checkpoint.pt")
        used = sat_on(checkpoint, device)
        result = evaluate(
            train,
            test,
            args.classifier,
            args.recipe,
            ipc=args.ipc,
            epochs=args.epochs,
            seeds=(seed,),
            refresh=cell.get("refresh", 1.0),
            checkpoint=checkpoint,
            device=device,
            alone=True,
        )
        run = {
            "accuracy": result.accuracies[0],
            "seconds": round(result.seconds, 1),
            "hardware": "; ".join(used),
            "versions": {"dim_data": __version__, "torch": torch.__version__, "python": platform.python_version()},
            "command": f"python benchmarks/reproduce.py {shlex.join(words)}".replace(str(args.data_root), "DIR"),
        }
        with held(args.out):  # another process may add a seed just now
            runs = {**runs_in(path), str(seed): run}
            write_json(path, {**cell, "images_shown": result.images_shown, "runs": runs})
        checkpoint.with_suffix(".txt").unlink()
        print(f"{path.name} seed {seed}: {result.mean:.4f}", flush=True)
    return path
