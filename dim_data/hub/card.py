"""The model card of a generator: its text, and whether a person has edited it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from dim_data.format import SAMPLES, TRAINING_CONFIG, GeneratorConfig
from dim_data.hub.accuracies import Accuracy, in_percent, state_accuracy
from dim_data.hub.client import write_metadata
from dim_data.images import KNOWN_SPECS
from dim_data.networks import ARCHITECTURES

__all__ = ["is_bare", "is_untouched", "render_card"]

PAPER = "2303.04707"
ORIGINS = {
    "cifar10": ("CIFAR-10", "uoft-cs/cifar10"),
    "eurosat": ("EuroSAT", None),
    "fashion_mnist": ("Fashion-MNIST", "zalando-datasets/fashion_mnist"),
    "mnist": ("MNIST", "ylecun/mnist"),
    "svhn": ("SVHN", "ufldl-stanford/svhn"),
}
"""What the known image sets are called, and where the Hub has them."""
EUROSAT = (
    "AnnualCrop",
    "Forest",
    "HerbaceousVegetation",
    "Highway",
    "Industrial",
    "Pasture",
    "PermanentCrop",
    "Residential",
    "River",
    "SeaLake",
)
"""The classes of EuroSAT, of which :data:`~dim_data.images.KNOWN_SPECS` knows nothing, in the order of its folders."""
CLASSES = {name: spec.classes for name, spec in KNOWN_SPECS.items()} | {"eurosat": EUROSAT}
CREDITS = {
    "eurosat": "[EuroSAT](https://github.com/phelber/EuroSAT) (Helber et al. 2019), which is under the MIT licence and "
    "contains modified Copernicus Sentinel data",
}
"""Whose a set is, and what must be said of it, where the Hub's page does not."""


class Terms(NamedTuple):
    """What may be done with a set that no licence of the Hub's list fits."""

    name: str
    link: str
    text: str


TERMS = {
    "svhn": Terms("svhn-non-commercial", "http://ufldl.stanford.edu/housenumbers/", "for non-commercial use only"),
}
"""Of the known image sets that have such."""
PICTURES = {True: "other ones from epoch to epoch, until all were shown", False: "new ones in every epoch"}
"""What an epoch shows, of stored codes and of noise."""
LATENTS = {
    "noise": "random numbers, new for each picture",
    "gaussian": "random numbers, new for each picture",
    "prior": "random numbers, through a transformer that has learned what codes are like, new for each picture",
    "codes": "{config.codes} stored codes",
}
"""What is said of each kind of source."""
SEAL = "<!-- Written by dim-data and not edited since: sha256 {} -->\n"
TEXT = """
# {heading}

{title} in a file of {megabytes:.2f} MB: a small generator, made by the Python library dim_data, that paints labelled
pictures to train classifiers on in place of the real ones, {pictures}.

![Samples, one class a row]({samples})

## Use

Install dim_data, then:

```python
from dim_data import DistilledDataset
from torchvision.transforms import Compose, Normalize, ToTensor

transform = Compose([ToTensor(), Normalize({mean}, {std})])
train_set = DistilledDataset("{repo_id}", ipc=50, transform=transform)
image, label = train_set[0]  # a map-style dataset like torchvision's: hand it to your DataLoader
```

`ipc` is the number of pictures of each class in an epoch. {pinning}

**Normalisation.** Pictures come un-normalised. Use the mean and standard deviation above in training and in testing: a
classifier trained under one normalisation and tested under another guesses at random.

## What it is

| | |
|---|---|
{facts}

## Accuracy

{accuracy}

## Limits and bias

Pictures have the size above and no more detail than the generator remembers. They carry the biases of the images it was
made from, and what is rare there may be missing here. {likeness} Never test on these pictures: a test set is real.
They are for research on learning, not for judging people or products.

## Licence

{licence}

## Citation

```bibtex
@article{{wang2023dim,
  title = {{DiM: Distilling Dataset into Generative Model}},
  author = {{Wang, Kai and Gu, Jianyang and Zhou, Daquan and Zhu, Zheng and Jiang, Wei and You, Yang}},
  journal = {{arXiv preprint arXiv:{paper}}},
  year = {{2023}}
}}
```
"""
PROTOCOL = """
Accuracy on real test images, mean and sample standard deviation over the seeds. For each seed a fresh classifier is
trained on nothing but pictures from this generator, `ipc` of each class in each epoch, and tested once, after its last
step. {command} measures it again.
"""


def render_card(
    repo_id: str,
    config: GeneratorConfig,
    *,
    size: int,
    accuracies: Sequence[Accuracy] = (),
    license: str | None = None,
    training: Mapping[str, Any] | None = None,
) -> str:
    """The card of a generator: metadata, five lines of use, what it is, its accuracies, limits, licence, citation.

    Args:
        repo_id: Where it will be.
        config: What it is.
        size: Bytes of its weights' file.
        accuracies: What was measured.
        license: A licence of the Hub's list, such as ``"mit"``. Left out, it is ``"other"`` where the images have
            :data:`TERMS` of their own, which the card states in any case.
        training: What its training configuration says, if known.
    """
    spec, training = config.spec, training or {}
    known = CLASSES.get(spec.name) == spec.classes
    title, origin = ORIGINS.get(spec.name, (spec.name, None)) if known else (spec.name, None)
    terms, credit = (TERMS.get(spec.name), CREDITS.get(spec.name)) if known else (None, None)
    named: dict[str, Any] = {}
    if terms and license in (None, "other"):
        license, named = "other", {"license_name": terms.name, "license_link": terms.link}
    settings = training.get("config")
    gan = isinstance(settings, Mapping) and settings.get("first") == "adversarial"
    fields: dict[str, Any] = {
        "library_name": "dim-data",
        "pipeline_tag": "unconditional-image-generation",
        "license": license,
        **named,
        "datasets": [origin] if origin else None,
        "tags": ["dataset-distillation", *(["gan"] if gan else []), f"arxiv:{PAPER}"],
        "metrics": ["accuracy"],
    }
    results = [state_accuracy(one, origin or spec.name, title) for one in accuracies]
    name, pushed = repo_id.split("/")[-1], "/" in repo_id
    files = "--test PATH`, with real test images there,"
    if known and spec.name in KNOWN_SPECS:
        files = "--data-root DIR`, with the real files in `DIR`,"
    command = f"`dim-data evaluate {repo_id} {files}"
    text = TEXT.format(
        heading=f"{name}: {title}, distilled" if known else name,
        title=_plain(title),
        megabytes=size / 1e6,
        pictures=PICTURES[bool(config.codes)],
        samples=SAMPLES,
        mean=spec.mean,
        std=spec.std,
        repo_id=repo_id,
        pinning=f"{'`revision=...` pins a commit, ' if pushed else ''}`fixed=True` pins one set of pictures.",
        facts=_table(_facts(config, size, training)),
        accuracy=_accuracy(command, accuracies),
        likeness="The stored codes decode to likenesses of the images it was made from, which may be recognised."
        if config.codes
        else "It may reproduce images it was made from.",
        licence=_licence(license, title, origin, terms, credit),
        paper=PAPER,
    )
    body = f"---\n{write_metadata(fields, name, results).strip()}\n---\n{text}\n"
    return body + SEAL.format(hashlib.sha256(body.encode()).hexdigest())


def _licence(license: str | None, title: str, origin: str | None, terms: Terms | None, credit: str | None) -> str:
    own = terms.text if terms and license == "other" else license or "not stated"
    page = f": see [its page](https://huggingface.co/datasets/{origin})" if origin else ""
    theirs = (
        f"which is {terms.text}, by [its terms]({terms.link}){page}" if terms else f"whose licence applies too{page}"
    )
    return f"The generator: {own}. It is derived from {credit or f'{_plain(title)}, {theirs}'}."


def _facts(config: GeneratorConfig, size: int, training: Mapping[str, Any]) -> list[tuple[str, str]]:
    spec = config.spec
    more = ", ..." if spec.num_classes > 20 else ""
    latents = LATENTS[config.kind].format(config=config)
    facts = [
        ("images", f"{spec.size}x{spec.size}, {'grey' if spec.channels == 1 else 'RGB'}"),
        ("classes", f"{spec.num_classes}: {', '.join(map(_plain, spec.classes[:20]))}{more}"),
        ("network", f"{config.architecture}: {ARCHITECTURES[config.architecture].summary}"),
        ("latents", latents),
        ("bytes", str(size)),
    ]
    if config.soft_labels:
        teacher = "of a teacher, stored with the codes" if config.codes else "of a teacher inside"
        facts.append(("soft labels", f"{teacher}: `DistilledDataset(..., soft_labels=True)`"))
    if training:
        numbers = [
            f"{training[key]:,} {unit}"
            for key, unit in (
                ("minutes", "minutes"),
                ("refining_minutes", "minutes of refining its codes"),
                ("teacher_minutes", "minutes of its teacher"),
                ("images_shown", "images shown"),
            )
            if isinstance(training.get(key), int | float)
        ]
        facts.append(("made by", ", ".join([*numbers, f"recipe in [{TRAINING_CONFIG}]({TRAINING_CONFIG})"])))
    return facts


def _table(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _accuracy(command: str, accuracies: Sequence[Accuracy]) -> str:
    if not accuracies:
        return f"Not measured yet: {command} does it."
    rows = [
        (
            _plain(one.classifier),
            _plain(one.recipe),
            str(one.ipc),
            str(one.epochs),
            ", ".join(map(str, one.seeds)),
            in_percent(one),
        )
        for one in accuracies
    ]
    head = ("classifier", "recipe", "ipc", "epochs", "seeds", "accuracy")
    others = sorted({one.tested_on for one in accuracies if one.tested_on})
    text = PROTOCOL.format(command=command).rstrip() + "".join(f" **Tested on {_plain(what)}.**" for what in others)
    return _table([head, ["---"] * len(head), *rows]) + "\n" + text


def _plain(text: str) -> str:
    """``text`` on one line, without what Markdown or HTML would read."""
    return re.sub(r"([\\`*_{}\[\]<>|#~])", r"\\\1", " ".join(text.split()))


def is_bare(card: str | None) -> bool:
    """Whether a card has metadata alone, as the Hub writes them where a licence is chosen for a new repository."""
    return card is not None and re.fullmatch(r"---\n((?!---).*\n)*---\s*", card.replace("\r\n", "\n")) is not None


def is_untouched(card: str) -> bool:
    """Whether :func:`render_card` wrote this text and nobody has changed it since."""
    body, seal = card[: card.rfind("<!--")], card[card.rfind("<!--") :]
    return seal == SEAL.format(hashlib.sha256(body.encode()).hexdigest())
