"""Model cards of the bundled generators, from the result files: what ``dim-data info`` states of them."""

from __future__ import annotations

import hashlib
import statistics
from pathlib import Path
from typing import Any

from PIL.PngImagePlugin import PngInfo

from accuracy.plots import STAMP, is_current
from dim_data import Generator
from dim_data.format import CARD, CONFIG, SAMPLES, WEIGHTS, read_config
from dim_data.generator import read_training, sample_grid
from dim_data.hub import Accuracy, stated_accuracies
from dim_data.hub.card import TERMS, render_card


def measured(name: str, results: list[dict[str, Any]]) -> tuple[Accuracy, ...]:
    """What the result files say of a generator, in the order of a table."""
    found = []
    for cell in results:
        if (cell["row"], cell["source"]) == ("generator", name):
            values = [run["accuracy"] for run in cell["runs"].values()]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            seeds = tuple(sorted(map(int, cell["runs"])))
            mean, std = round(statistics.fmean(values), 4), round(spread, 4)
            named = (cell["classifier"], cell["recipe"], cell["ipc"], cell["epochs"])
            found.append(Accuracy(*named, seeds, mean, std, cell.get("tested_on", "")))
    return tuple(sorted(found, key=lambda one: (one.classifier, one.recipe, one.ipc)))


def is_card_current(folder: Path, accuracies: tuple[Accuracy, ...]) -> bool:
    """Whether the card states these accuracies of these weights, and the picture shows them.

    The text's form is left to the library that writes it: another version of it is no reason to write anew.
    """
    card, weights = folder / CARD, (folder / WEIGHTS).read_bytes()
    return (
        card.is_file()
        and f"| bytes | {len(weights)} |" in card.read_text(encoding="utf-8")
        and stated_accuracies(folder) == accuracies
        and is_current(folder / SAMPLES, hashlib.sha256(weights).hexdigest())
    )


def write_card(folder: Path, accuracies: tuple[Accuracy, ...]) -> None:
    """Write the card of the generator in ``folder``, under its name, and its picture where the weights changed.

    Another processor paints it a grey level or so differently, which is no reason to store it anew.
    """
    weights = (folder / WEIGHTS).read_bytes()
    text = render_card(
        folder.name,
        read_config(folder / CONFIG),
        size=len(weights),
        accuracies=accuracies,
        license=None if read_config(folder / CONFIG).spec.name in TERMS else "mit",
        training=read_training(folder),
    )
    (folder / CARD).write_text(text, encoding="utf-8")
    digest = hashlib.sha256(weights).hexdigest()
    if is_current(folder / SAMPLES, digest):
        return
    stamp = PngInfo()
    stamp.add_text(STAMP, digest)
    sample_grid(Generator.from_pretrained(folder)).save(folder / SAMPLES, pnginfo=stamp, optimize=True)
