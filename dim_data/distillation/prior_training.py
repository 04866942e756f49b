"""What a prior is trained on: stored codes, or codes of real images, mirrored and shifted, or turned."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dim_data.distillation.choices import PriorTrainingConfig
from dim_data.distillation.clusters import Sight, cluster_classes, describe_images, summaries
from dim_data.distillation.likelihood import CodeSet, Encode, fit_conditions, fit_prior, prior_for, prior_parts
from dim_data.distillation.loops import StageStep
from dim_data.distillation.reconstruction import encode_images
from dim_data.format import to_numbers
from dim_data.generator import Generator
from dim_data.images import LabelledImages, cut, torch_defaults
from dim_data.networks import ALONE, GlobalRng, Ranks, TokenPrior
from dim_data.protocol import LoopState

__all__ = ["PriorTraining", "prior_training_on_images"]

SHIFT = 2
"""Pixels by which an image is shifted before it is encoded, at most."""
STORED, MIRRORED = 0.4, 0.2
"""Shares of the kinds of code; the rest is shifted."""
TURNED = 4096
"""Images that are turned at once."""


@torch_defaults()
def prior_training_on_images(
    generator: Generator,
    encoder: nn.Module,
    train: LabelledImages,
    held_out: LabelledImages,
    classifier: nn.Module | None,
    config: PriorTrainingConfig,
    *,
    stored: Tensor | None = None,
    mirror: bool,
    seed: int,
    device: torch.device,
    ranks: Ranks = ALONE,
) -> PriorTraining:
    """The training on codes of real images, which are mirrored and shifted by chance, or all turned.

    Args:
        generator: Whose decoder the codes are for; stores codes.
        encoder: Makes them.
        train: Images to learn from.
        held_out: Images to look at.
        classifier: Clusters the images of a class by what it sees; ``None``: classes are not parted.
        config: Of the stage.
        stored: Codes of the images as they are, those to learn from first: uint8 (N, *shape), on the CPU. ``None``
            encodes them.
        mirror: Whether images are mirrored, too.
        seed: Of everything random.
        device: Where to compute.
        ranks: Who shares the work.
    """
    sets, levels, views = (train, held_out), generator.bank.levels, 1
    if config.turned:
        views = 8 if mirror else 4
    codes = stored
    if codes is None or views > 1:
        shown = (part for data in sets for part in _views(data, views))
        latents = (latent for part in shown for latent in encode_images(encoder, part.images, device, ranks))
        codes = torch.cat([to_numbers(latent, levels).cpu() for latent in latents])
    if stored is not None and views > 1:
        learned = views * len(train)
        codes[: len(train)], codes[learned : learned + len(held_out)] = stored.split([len(train), len(held_out)])
    sight = None
    if classifier is not None:
        shown = (part for data in sets for part in _views(data, views))
        sight = _described(classifier, shown, train.spec.num_classes, device, ranks)
    held = torch.arange(len(codes)) >= views * len(train)
    labels = torch.cat([data.labels.cpu().repeat(views) for data in sets])
    training = PriorTraining.of(generator, codes, labels, held, sight, config, seed, device)
    training.ranks = ranks
    if views > 1:
        return training
    known = training.train.codes

    def encode(rows: Tensor, rng: torch.Generator, here: Tensor) -> tuple[Tensor, Tensor]:
        draw, turned = torch.rand(2, len(rows), generator=rng)
        moves = torch.randint(2 * SHIFT + 1, (2, len(rows)), generator=rng)
        rows, draw, turned, moves = rows[here], draw[here], turned[here], moves[:, here]
        mirrored = (draw >= STORED) & (draw < STORED + MIRRORED) if mirror else torch.zeros(len(rows), dtype=torch.bool)
        shifted = (draw >= STORED) & ~mirrored
        kinds = mirrored.long() + 2 * shifted.long()
        moves = torch.where(shifted, moves, SHIFT)
        flipped = mirrored | (shifted & (turned < 0.5) & mirror)
        again, at = (kinds > 0).nonzero()[:, 0], rows.to(known.device)
        images = train.images[rows[again].to(train.images.device)]
        turn = flipped[again].to(images.device)[:, None, None, None]
        images = _shift(torch.where(turn, images.flip(-1), images), moves[:, again])
        found = known[at]
        parts = [found[:0], *(to_numbers(part, levels) for part in encode_images(encoder, images, device))]
        found[again.to(found.device)] = torch.cat(parts)
        return found, kinds.to(device)

    training.encode = encode
    return training


def _views(data: LabelledImages, count: int) -> Iterator[LabelledImages]:
    """The images as they are, then all turned by a quarter, and so on, then all mirrored and turned; part by part."""
    if count == 1:
        yield data
        return
    for view in range(count):
        for rows in torch.arange(len(data)).split(TURNED):
            part = data.subset(rows)
            images = part.images[: len(part)]
            yield replace(part, images=torch.rot90(images.flip(-1) if view >= 4 else images, view % 4, (2, 3)))


def _described(
    classifier: nn.Module, sets: Iterable[LabelledImages], classes: int, device: torch.device, ranks: Ranks
) -> Sight:
    """What a classifier of so many classes sees in the images of all sets, each rank having looked at some."""
    found: list[Tensor] = []
    for data in sets:

        def look(part: slice, data: LabelledImages = data) -> Tensor:
            places = range(part.start, part.stop, 500)
            batches = (data.images[place : min(place + 500, part.stop)] for place in places)
            seen = describe_images(classifier, batches, data.spec, device)
            return torch.cat([seen.maps, seen.logits], 1)

        found += ranks.map(look, ranks.chunks(len(data), 500))
    seen = torch.cat(found)
    return Sight(seen[:, :-classes], seen[:, -classes:])


def _typical(sight: Sight, labels: Tensor, some: Tensor, accept: float) -> Tensor:
    """Which of ``some`` images the classifier gives their class at least ``accept``, and the better half of each class.

    All arguments but the last have a row for each image; so has the result, bool (N,).
    """
    sure = sight.logits.softmax(1).gather(1, labels[:, None])[:, 0]
    typical = torch.zeros_like(some)
    for label in labels.unique():
        rows = (some & (labels == label)).nonzero()[:, 0]
        typical[rows] = sure[rows] >= sure[rows].median().clamp(max=accept)
    return typical


def _shift(images: Tensor, moves: Tensor) -> Tensor:
    """Cut images (B, C, H, W) at ``moves`` (2, B), each 0 to 2 * SHIFT, out of themselves with mirrored borders."""
    padded = F.pad(images.float(), (SHIFT,) * 4, mode="reflect").to(images.dtype)
    down, right = moves.to(images.device)
    return cut(padded, down, right, images.shape[2])


@dataclass
class PriorTraining:
    """A prior to be trained, and what it is trained on.

    Attributes:
        state: Of the loop, which can be saved between any two steps.
        train: Codes to learn from.
        held_out: Codes to look at.
        config: Of the stage.
        dropout: Share of the channels left out.
        device: Where to compute.
        encode: See :func:`~dim_data.distillation.likelihood.fit_prior`.
        ranks: Who shares the work.
    """

    state: LoopState
    train: CodeSet
    held_out: CodeSet
    config: PriorTrainingConfig
    dropout: float
    device: torch.device
    encode: Encode | None = None
    ranks: Ranks = ALONE

    @classmethod
    def of(
        cls,
        generator: Generator,
        codes: Tensor,
        labels: Tensor,
        held: Tensor,
        sight: Sight | None,
        config: PriorTrainingConfig,
        seed: int,
        device: torch.device,
    ) -> PriorTraining:
        """A training on ``codes`` (N, *shape) of classes ``labels`` (N,), all on the CPU.

        Those that are ``held``, bool (N,), are looked at; all are, if none is. Classes are parted by what a classifier
        sees, and the prior is told it, if there is any ``sight``.
        """
        classes = generator.spec.num_classes
        size, dropout = prior_for(int((~held).sum()), classes, config, parted=sight is not None)
        clusters, features = labels, torch.zeros(len(labels), 0)
        typical = ~held
        if sight is not None:
            typical = _typical(sight, labels, ~held, config.accept)
            clusters = cluster_classes(sight.maps, labels, classes, size.clusters, seed)
            features = summaries(sight, size.features)
            size = replace(size, features=features.shape[1])
        train, held_out = (CodeSet(codes[some], labels[some], clusters[some], features[some]) for some in (~held, held))
        with GlobalRng(seed):
            prior = TokenPrior(size, generator.decoder.latent_shape, generator.bank.levels, classes)
        fit_conditions(prior, CodeSet(*(x[typical] for x in (codes, labels, clusters, features))), config.blur, seed)
        train = train.to(device)
        held_out = held_out.to(device) if len(held_out) else train
        return cls(prior_parts(prior, config.lr, seed, device), train, held_out, config, dropout, device)

    def steps(self) -> Iterator[StageStep]:
        """Train, yielding after each step."""
        options: dict[str, Any] = {"encode": self.encode, "device": self.device, "ranks": self.ranks}
        return fit_prior(self.state, self.train, self.held_out, self.config, self.dropout, **options)

    @property
    def result(self) -> TokenPrior:
        """The best weights so far."""
        best: TokenPrior = self.state.parts["best"].module
        return best
