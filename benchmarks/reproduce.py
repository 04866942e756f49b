"""One cell of the tables: train classifiers on one source, test them on real images, write JSON.

    python benchmarks/reproduce.py cifar10 --data-root DIR                         # the bundled generator
    python benchmarks/reproduce.py cifar10 --row real --data-root DIR              # real images, same protocol
    python benchmarks/reproduce.py cifar10 --row real --recipe soft --data-root DIR     # ... and the same soft labels
    python benchmarks/reproduce.py cifar10 --row before --source runs/cifar10/before_matching --data-root DIR
    python benchmarks/reproduce.py cifar10 --row stored --data-root DIR            # as many JPEGs as its bytes hold
    python benchmarks/reproduce.py cifar10 --row generator --source cifar10_noise --data-root DIR

Each seed is written when it is done; a second call with more seeds adds to the file. Killed within a seed, the same
call goes on from a checkpoint beside the file. Nothing is chosen here: the accuracy is that of the last step, on the
full test set.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dim_data import Generator, __version__, evaluate
from dim_data.format import WEIGHTS, write_atomically
from dim_data.generator import resolve
from dim_data.images import LabelledImages, load_real
from dim_data.networks import fast_dtype, resolve_device
from dim_data.protocol import RECIPES

RESULTS = Path(__file__).with_name("results")
ROWS = ("generator", "before", "real", "stored")


def hardware(device: torch.device) -> str:
    """The processor's name, cores used and number format."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {fast_dtype(device)}"
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = lines[0] if lines else name
    return f"{name}, {torch.get_num_threads()} of {os.cpu_count()} cores, {fast_dtype(device)}"


def sat_on(checkpoint: Path, device: torch.device) -> list[str]:
    """The processors of a training in several sittings, this one noted beside its checkpoint as the latest."""
    notes, before = checkpoint.with_suffix(".txt"), []
    if checkpoint.exists() and notes.exists():
        before = notes.read_text(encoding="utf-8").splitlines()
    used = list(dict.fromkeys([*before, hardware(device)]))
    write_atomically(notes, lambda file: file.write_text("\n".join(used), encoding="utf-8"))
    return used


def weights_path(source: str) -> Path:
    """Where a generator's weights are."""
    return resolve(source, None, None)[0] / WEIGHTS


def result_path(folder: Path, dataset: str, row: str, source: str, classifier: str, recipe: str, ipc: int) -> Path:
    """The result file of a cell; ``source`` is a generator's name, for real images the dataset's."""
    return folder / f"{dataset}-{row}-{source}-{classifier}-{recipe}-ipc{ipc}.json"


def runs_in(path: Path) -> dict[str, Any]:
    """The runs of a result file, by seed; none where there is no file yet."""
    runs: dict[str, Any] = json.loads(path.read_text())["runs"] if path.exists() else {}
    return runs


def as_sheet(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Images (N, H, W, C) side by side in one nearly square sheet."""
    count, height, width, channels = images.shape
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    sheet = np.zeros((rows * columns, height, width, channels), np.uint8)
    sheet[:count] = images
    return (
        sheet.reshape(rows, columns, height, width, channels).swapaxes(1, 2).reshape(rows * height, columns * width, -1)
    )


def from_sheet(sheet: np.ndarray[Any, Any], count: int, size: int) -> np.ndarray[Any, Any]:
    """Invert :func:`as_sheet`."""
    rows, columns = sheet.shape[0] // size, sheet.shape[1] // size
    tiles = sheet.reshape(rows, size, columns, size, -1).swapaxes(1, 2)
    return tiles.reshape(rows * columns, size, size, -1)[:count]


def stored_images(data: LabelledImages, budget: int, quality: int, seed: int = 0) -> tuple[LabelledImages, int]:
    """Random real images, balanced, as one JPEG sheet of at most ``budget`` bytes: (decoded images, bytes)."""
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    by_class = [order[data.labels[order] == label] for label in range(data.spec.num_classes)]

    def encode(per_class: int) -> tuple[torch.Tensor, bytes]:
        index = torch.cat([members[:per_class] for members in by_class])
        pixels = as_sheet(data.images[index].permute(0, 2, 3, 1).numpy())
        file = io.BytesIO()
        Image.fromarray(pixels.squeeze()).save(file, "jpeg", quality=quality, optimize=True)
        return index, file.getvalue()

    low, high = 1, min(len(members) for members in by_class)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if len(encode(middle)[1]) <= budget else (low, middle - 1)
    index, blob = encode(low)
    sheet = np.asarray(Image.open(io.BytesIO(blob)))
    images = from_sheet(sheet.reshape(*sheet.shape[:2], -1), len(index), data.spec.size)
    tensor = torch.from_numpy(images.copy()).permute(0, 3, 1, 2)
    return LabelledImages(tensor, data.labels[index], data.spec), len(blob)


def with_soft_labels(data: LabelledImages, generator: Generator) -> LabelledImages:
    """Real training images with the soft labels that ``generator`` stores for them.

    Raises:
        ValueError: It does not store one for each image of the whole training set.
    """
    if not generator.config.soft_labels or generator.bank.counts.tolist() != torch.bincount(data.labels).tolist():
        raise ValueError(
            "--row real with soft labels wants a --source that stores a soft label for every training image"
        )
    soft = torch.empty(len(data), data.spec.num_classes)
    soft[data.labels.argsort(stable=True)] = generator.bank.soft.float() / generator.bank.soft.float().sum(
        1, keepdim=True
    )
    return replace(data, soft=soft)


def main(argv: list[str] | None = None) -> Path:
    """Run one cell and return the path of its result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="cifar10, fashion_mnist, mnist or svhn")
    parser.add_argument("--row", choices=ROWS, default="generator")
    parser.add_argument("--source", help="generator: bundled name or folder (default: the dataset's name)")
    parser.add_argument("--classifier", default="convnet3")
    parser.add_argument("--recipe", choices=list(RECIPES), default="tuned")
    parser.add_argument("--ipc", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--quality", type=int, default=50, help="JPEG quality of --row stored")
    parser.add_argument("--data-root", default=os.environ.get("DIM_DATA_ROOT"), help="default: DIM_DATA_ROOT")
    parser.add_argument("--device")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    device = resolve_device(args.device)
    source = args.source or args.dataset
    test = load_real(args.dataset, split="test", root=args.data_root)
    cell: dict[str, Any] = {"dataset": args.dataset, "row": args.row, "classifier": args.classifier}
    cell |= {"recipe": args.recipe, "ipc": args.ipc, "epochs": args.epochs}
    train: Generator | LabelledImages
    if args.row in ("generator", "before"):
        train = Generator.from_pretrained(source, device=device)
        # Of a run's before_matching/, the run's name says which generator it became.
        cell["source"] = (Path(source).resolve().parent if args.row == "before" else Path(source)).name
        cell |= {"latents": train.config.source, "bytes": weights_path(source).stat().st_size}
        facts = weights_path(source).with_name("training_config.json")
        if facts.exists():
            cell["training_minutes"] = json.loads(facts.read_text())["minutes"]
    else:
        train = load_real(args.dataset, root=args.data_root)
        cell["source"] = args.dataset
        if args.row == "real" and RECIPES[args.recipe].soft_labels:
            train = with_soft_labels(train, Generator.from_pretrained(source))
            cell["soft_labels_of"] = Path(source).name
        if args.row == "stored":
            train, size = stored_images(train, weights_path(source).stat().st_size, args.quality)
            cell |= {
                "source": Path(source).name,
                "bytes": size,
                "stored_images": len(train),
                "jpeg_quality": args.quality,
            }

    path = result_path(args.out, args.dataset, args.row, cell["source"], args.classifier, args.recipe, args.ipc)
    args.out.mkdir(parents=True, exist_ok=True)
    for seed in args.seeds:
        if str(seed) in runs_in(path):
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
            checkpoint=checkpoint,
            device=device,
        )
        command = f"python benchmarks/reproduce.py {shlex.join(argv if argv is not None else sys.argv[1:])}"
        runs = runs_in(path)  # again: another process may have added a seed meanwhile
        runs[str(seed)] = {
            "accuracy": result.accuracies[0],
            "seconds": round(result.seconds, 1),
            "hardware": "; ".join(used),
            "versions": {
                "dim_data": __version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
            "command": command.replace(str(args.data_root), "DIR"),
        }
        text = json.dumps({**cell, "images_shown": result.images_shown, "runs": runs}, indent=2) + "\n"
        write_atomically(path, lambda file, text=text: file.write_text(text))
        checkpoint.with_suffix(".txt").unlink()
        print(f"{path.name} seed {seed}: {result.mean:.4f}", flush=True)
    return path


if __name__ == "__main__":
    main()
