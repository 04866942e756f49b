"""The accuracies that a card states: written from evaluations, read back, compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any, Protocol

from dim_data.hub import client

__all__ = ["Accuracy", "Measurement", "agree", "in_percent", "read_accuracies", "state_accuracy"]

FLOOR = 0.01
"""Means that differ by no more agree, whatever their spread."""


class Measurement(Protocol):
    """What a card says of one evaluation; an :class:`~dim_data.protocol.Evaluation` says it."""

    @property
    def classifier(self) -> str:
        """Name of the classifier."""

    @property
    def recipe(self) -> str:
        """Name of the recipe."""

    @property
    def ipc(self) -> int:
        """Images per class in each epoch."""

    @property
    def epochs(self) -> int:
        """Epochs of training."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """One training run each."""

    @property
    def mean(self) -> float:
        """Mean test accuracy over the seeds, in [0, 1]."""

    @property
    def std(self) -> float:
        """Sample standard deviation over the seeds; 0 for a single one."""


@dataclass(frozen=True)
class Accuracy:
    """A :class:`Measurement` as a card states it, in hundredths of a per cent.

    ``tested_on`` says which images were tested on, where they are not the set's own test images.
    """

    classifier: str
    recipe: str
    ipc: int
    epochs: int
    seeds: tuple[int, ...]
    mean: float
    std: float
    tested_on: str = ""

    @classmethod
    def of(cls, measured: Measurement) -> Accuracy:
        """``measured``, rounded to what a card states."""
        return cls(
            str(measured.classifier),
            str(measured.recipe),
            int(measured.ipc),
            int(measured.epochs),
            tuple(int(seed) for seed in measured.seeds),
            round(float(measured.mean), 4),
            round(float(measured.std), 4),
            str(getattr(measured, "tested_on", "")),
        )

    def __str__(self) -> str:
        runs = f"{len(self.seeds)} seed{'s' * (len(self.seeds) > 1)}"
        return (
            f"{self.classifier}, recipe {self.recipe}, ipc {self.ipc}: {in_percent(self)} "
            f"({runs}, {self.epochs} epochs{f'; tested on {self.tested_on}' if self.tested_on else ''})"
        )


def in_percent(measured: Measurement) -> str:
    """Mean and spread, such as ``73.64% +- 0.27%``; of a single seed there is no spread."""
    return f"{measured.mean:.2%}" + (f" +- {measured.std:.2%}" if len(measured.seeds) > 1 else "")


def agree(stated: Measurement, measured: Measurement, sample: int | None = None) -> bool:
    """Whether two means differ by no more than chance: three standard errors of the difference, or :data:`FLOOR`.

    Bit-equal accuracies are not to be expected: other hardware rounds otherwise, and training amplifies it.

    Args:
        stated: What a card says.
        measured: What was found now.
        sample: How many images that was tested on, where they are a sample of those that the card's was.
    """
    variance = sum(one.std**2 / len(one.seeds) for one in (stated, measured))
    if sample:
        variance += stated.mean * (1 - stated.mean) / sample
    return abs(stated.mean - measured.mean) <= max(FLOOR, 3 * sqrt(variance))


def state_accuracy(one: Accuracy, dataset_type: str, dataset_name: str) -> dict[str, Any]:
    """An accuracy as the fields of a Hub ``EvalResult``, an entry of a model-index: inverse of :func:`read_accuracies`.

    Args:
        one: What was measured.
        dataset_type: The real image set, as the Hub or its spec calls it.
        dataset_name: The same for people.
    """
    arguments = {**asdict(one), "seeds": list(one.seeds)}
    if len(one.seeds) == 1:  # a spread of 0 would be read as a measured one
        del arguments["std"]
    if not one.tested_on:
        del arguments["tested_on"]
    return {
        "task_type": "image-classification",
        "task_name": "Image classification, trained on this generator alone",
        "dataset_type": dataset_type,
        "dataset_name": dataset_name,
        "dataset_split": one.tested_on or "test",
        "metric_type": "accuracy",
        "metric_name": f"Accuracy of {one.classifier}, recipe {one.recipe}, ipc {one.ipc}",
        "metric_value": arguments.pop("mean"),
        "metric_args": arguments,
    }


def read_accuracies(card: str) -> tuple[Accuracy, ...]:
    """The accuracies in a card's model-index; entries of another form are left out.

    Raises:
        ValueError: The metadata cannot be read.
    """
    found = []
    for result in client.read_results(card):
        arguments, mean = result["metric_args"], result["metric_value"]
        if result["metric_type"] != "accuracy" or not isinstance(arguments, Mapping):
            continue
        values: dict[str, Any] = {k: arguments.get(k) for k in ("classifier", "recipe", "ipc", "epochs")}
        seeds: Any = arguments.get("seeds")
        values["tested_on"] = arguments.get("tested_on", "")
        values["std"] = arguments.get("std", 0.0 if isinstance(seeds, list) and len(seeds) == 1 else None)
        if (
            all(_is_name(values[name]) for name in ("classifier", "recipe"))
            and (values["tested_on"] == "" or _is_name(values["tested_on"]))
            and all(_is_int(values[name]) and 0 < values[name] <= 1_000_000 for name in ("ipc", "epochs"))
            and all(_is_share(value) for value in (mean, values["std"]))
            and isinstance(seeds, list)
            and 0 < len(seeds) <= 1000
            and all(_is_int(seed) for seed in seeds)
        ):
            found.append(Accuracy(**{**values, "mean": float(mean), "seeds": tuple(seeds)}))
    return tuple(found)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 200 and value.isprintable()


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_share(value: Any) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool) and 0 <= value <= 1
