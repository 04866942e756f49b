"""Train teachers on real images, then store what they say of a generator's pictures.

    python benchmarks/relabel.py cifar10 --data-root DIR --out cifar10_relabelled

The held-out part of the training set, the same that ``distill()`` holds out, says how good the teachers are; the
test set is not read. Weights are written in the number format given by ``--dtype``; pictures stay the same.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dim_data import Generator
from dim_data.augment import permitted
from dim_data.classifiers import CLASSIFIERS, build_classifier
from dim_data.compute import resolve_device
from dim_data.evaluation import measure_accuracy, train_classifier
from dim_data.hub import TRAINING_CONFIG, write_atomically
from dim_data.labelling import relabel
from dim_data.presets import DistillConfig
from dim_data.real import load_real
from dim_data.recipes import Recipe
from dim_data.storage import resolve

TEACHER = Recipe("teacher", 100, 0.1, "one-cycle", True, ("flip", "crop"))
DTYPES = {"int8": torch.int8, "float16": torch.float16, "float32": torch.float32}


def main(argv: list[str] | None = None) -> Path:
    """Relabel a generator and return the folder it was written to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="a generator with codes: bundled name or folder")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dataset", help="a dataset's name (default: the source's)")
    parser.add_argument("--teacher", default="resnet10_half", choices=sorted(CLASSIFIERS))
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="one teacher each")
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="int8")
    parser.add_argument("--data-root", default=os.environ.get("DIM_DATA_ROOT"), help="default: DIM_DATA_ROOT")
    parser.add_argument("--device")
    args = parser.parse_args(argv)
    started, device = time.monotonic(), resolve_device(args.device)
    generator = Generator.from_pretrained(args.source, device=device)
    path = resolve(args.source, None, None)[0] / TRAINING_CONFIG
    facts: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    made = DistillConfig.from_dict(facts.get("config", {}))
    data = load_real(args.dataset or generator.spec.name, root=args.data_root)
    train, held_out = data.split(made.holdout, made.seed)
    recipe = replace(TEACHER, augmentation=permitted(TEACHER.augmentation, data.spec))
    ipc = int(torch.bincount(train.labels).min())
    teachers, accuracies = [], []
    for seed in args.seeds:
        torch.manual_seed(seed)
        teacher = build_classifier(args.teacher, data.spec)
        for step in train_classifier(teacher, train, recipe, ipc=ipc, epochs=args.epochs, seed=seed, device=device):
            if step.step % 100 == 0:
                print(f"teacher {seed}: step {step.step} of {step.steps}, loss {step.loss:.3f}", flush=True)
        teachers.append(teacher)
        accuracies.append(round(measure_accuracy(teacher, held_out), 4))
    folder = relabel(generator, *teachers).save_pretrained(args.out, dtype=DTYPES[args.dtype])
    facts["soft_labels"] = {
        "of": "pictures",
        "teacher": args.teacher,
        "seeds": args.seeds,
        "recipe": vars(recipe),
        "images_shown": ipc * args.epochs * data.spec.num_classes * len(args.seeds),
        "held_out_accuracies": accuracies,
        "minutes": round((time.monotonic() - started) / 60, 1),
        "device": str(device),
        "torch": torch.__version__,
    }
    text = json.dumps(facts, indent=2) + "\n"
    write_atomically(folder / TRAINING_CONFIG, lambda file: file.write_text(text, encoding="utf-8"))
    return folder


if __name__ == "__main__":
    main()
