"""The prior's training loop: how likely are the codes of real images, number by number, in bits.

A few ten thousand codes are few for a network that could learn them by heart. So tokens that it is told are replaced
by chance, channels dropped, images mirrored and shifted before they are encoded (each kind told, so that it is never
drawn), classes, clusters and features left untold now and then; and the weights that are kept are those under which
held-out codes took the fewest bits.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dim_data.distillation.choices import PriorTrainingConfig
from dim_data.distillation.loops import Ema, StageStep
from dim_data.images import WHOLE, Portion, in_steps, torch_defaults
from dim_data.networks import ALONE, PriorConfig, Ranks, TokenPrior, autocast, compiled
from dim_data.protocol import LoopState

__all__ = [
    "CodeSet",
    "Encode",
    "fit_conditions",
    "fit_prior",
    "held_out_bits",
    "prior_for",
    "prior_parts",
    "prior_steps",
]

RISE, LAST = 300, 0.02
UNTOLD_CLASS, UNTOLD_CLUSTER = 0.1, 0.15
EMA = 0.999

SIZES = ((40_000, 256, 4, 96, 0.1), (15_000, 192, 6, 96, 0.15), (5_000, 128, 4, 64, 0.2), (0, 64, 3, 32, 0.25))
"""From so many codes on: width, layers, hidden, dropout."""
PER_CLUSTER = 100
FEATURES = 64
LOOKED_AT = 256
"""Held-out codes in one forward pass."""
ANCHORS, MOST = 20_480, 512
"""Features of real images that a prior keeps, and of one cluster, at most: 36 bytes each in four bits."""

Encode = Callable[[Tensor, torch.Generator, Tensor], tuple[Tensor, Tensor]]
"""Rows int64 (B,) of a :class:`CodeSet`, random numbers for all of them, and which are at hand, bool (B,), to codes of
those (H, *shape) and their kinds, int64 (H,)."""


@dataclass(frozen=True)
class CodeSet:
    """Codes to learn from.

    Args:
        codes: uint8 (N, *shape).
        labels: int64 (N,).
        clusters: int64 (N,), each ``label * clusters + cluster``.
        features: float32 (N, D), of unit variance; D may be 0.
    """

    codes: Tensor
    labels: Tensor
    clusters: Tensor
    features: Tensor

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Codes, labels, clusters and features."""
        return self.codes, self.labels, self.clusters, self.features

    def to(self, device: torch.device) -> CodeSet:
        """The same on ``device``."""
        codes, labels, clusters, features = (x.to(device) for x in self.tensors)
        return CodeSet(codes, labels, clusters, features)


def prior_for(codes: int, classes: int, config: PriorTrainingConfig, parted: bool = True) -> tuple[PriorConfig, float]:
    """Size and dropout of a prior of so many codes: those chosen, and where none is, what does not overfit them.

    Unless classes are ``parted``, each is one cluster.
    """
    _, width, layers, hidden, dropout = next(size for size in SIZES if codes >= size[0])
    clusters = (config.clusters or max(1, min(32, codes // (classes * PER_CLUSTER)))) if parted else 1
    groups = classes * clusters
    size = PriorConfig(
        config.width or width,
        config.layers or layers,
        config.hidden or hidden,
        clusters,
        features=(FEATURES if config.features is None else config.features) if parted else 0,
        anchors=config.anchors or max(1, min(MOST, ANCHORS // groups, codes // groups)),
    )
    return size, dropout if config.dropout is None else config.dropout


def prior_steps(codes: int, config: PriorTrainingConfig) -> int:
    """Steps of the whole stage."""
    return max(1, round(config.epochs * codes / config.batch_size))


class Best:
    """The best weights so far, by bits of held-out codes, and how many looks ago that was."""

    def __init__(self, module: nn.Module) -> None:
        self.module = copy.deepcopy(module).requires_grad_(False)
        self.bits, self.waited = math.inf, 0

    def update(self, module: nn.Module, bits: float) -> None:
        """Take these weights if they are better."""
        self.waited += 1
        if bits < self.bits:
            self.module.load_state_dict(module.state_dict())
            self.bits, self.waited = bits, 0

    def state_dict(self) -> dict[str, Any]:
        """Weights, bits and looks since."""
        return {"module": self.module.state_dict(), "bits": self.bits, "waited": self.waited}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave."""
        self.module.load_state_dict(state_dict["module"])
        self.bits, self.waited = state_dict["bits"], state_dict["waited"]


@torch_defaults()
@torch.no_grad()
def fit_conditions(prior: TokenPrior, codes: CodeSet, blur: float, seed: int = 0) -> None:
    """Have ``prior`` draw clusters as often as ``codes`` have them, and features as it is trained on them.

    Those are features of real images with noise added. Drawn from a Gaussian of each cluster instead, they are seldom
    together as those of an image are, and the prior writes codes that are 20 bits longer, with less contrast.

    Args:
        prior: On the CPU.
        codes: On the CPU.
        blur: Standard deviation of the noise.
        seed: Of the choice of anchors, where a cluster has more images than a prior keeps; where it has fewer, some are
            kept twice.
    """
    classes, count = prior.frequencies.shape
    counts = torch.bincount(codes.clusters, minlength=classes * count)
    members = torch.bincount(codes.labels, minlength=classes).clamp(min=1)
    prior.frequencies.copy_(counts.view(classes, count) / members[:, None])
    if not prior.config.features:
        return
    prior.blur.fill_(blur)
    rng = torch.Generator().manual_seed(seed)
    for cluster in counts.nonzero()[:, 0].tolist():
        rows = (codes.clusters == cluster).nonzero()[:, 0]
        rows = rows[torch.randperm(len(rows), generator=rng)]
        kept = rows[torch.arange(prior.config.anchors) % len(rows)]
        prior.anchors[cluster] = codes.features[kept]


@torch_defaults()
def prior_parts(prior: TokenPrior, lr: float, seed: int, device: torch.device) -> LoopState:
    """A fresh state of the loop: ``prior``, ``optimizer``, ``average`` and ``best``."""
    prior.to(device).train().requires_grad_(True)
    matrices = [p for p in prior.parameters() if p.ndim > 1]
    vectors = [p for p in prior.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr, betas=(0.9, 0.98))
    return LoopState(
        {"prior": prior, "optimizer": optimizer, "average": Ema(prior, EMA), "best": Best(prior)},
        seed,
    )


@in_steps()
def fit_prior(
    state: LoopState,
    train: CodeSet,
    held_out: CodeSet,
    config: PriorTrainingConfig,
    dropout: float,
    *,
    encode: Encode | None = None,
    device: torch.device,
    ranks: Ranks = ALONE,
) -> Iterator[StageStep]:
    """Train ``state.parts["prior"]``, yielding after each step; ``state.parts["best"]`` is what to keep.

    Ends early when the bits of held-out codes have not improved for ``config.patience`` looks.

    Args:
        state: Made by :func:`prior_parts`.
        train: Codes to learn from, on ``device``.
        held_out: Codes to look at, on ``device``.
        config: Of the stage.
        dropout: Share of the channels of each branch that are left out.
        encode: Codes of the images of rows, mirrored or shifted by chance; ``None`` takes those of ``train``.
        device: Where to compute.
        ranks: Who shares each batch.
    """
    prior, optimizer, average, best = (state.parts[name] for name in ("prior", "optimizer", "average", "best"))
    steps = prior_steps(len(train), config)
    every = max(10, steps // config.looks // 10 * 10)  # runs log each tenth step
    size, portion = config.batch_size, ranks.portion

    def loss_of(tokens: Tensor, *inputs: Tensor) -> Tensor:
        return prior.nats(prior(tokens, *inputs), tokens).mean()

    ask = compiled(loss_of)
    prior.train()
    while state.step < steps and best.waited < config.patience:
        for group in optimizer.param_groups:
            group["lr"] = config.lr * _rate(state.step, steps)
        rows = torch.randint(len(train), (size,), generator=state.rng)
        at = portion.of(rows).to(device)
        codes, kinds = train.codes[at], torch.zeros_like(at)
        if encode is not None:
            here = torch.zeros(size, dtype=torch.bool)
            here[portion.of(torch.arange(size))] = True
            codes, kinds = encode(rows, state.rng, here)
        tokens = prior.tokenize(codes).long()
        labels = _untold(train.labels[at], prior.classes, UNTOLD_CLASS, state.rng, portion)
        clusters = _untold(train.clusters[at], prior.cluster.num_embeddings - 1, UNTOLD_CLUSTER, state.rng, portion)
        features = _blurred(train.features[at], config.blur, state.rng, portion)
        features = features * portion.of(torch.rand(size, 1, generator=state.rng) >= UNTOLD_CLASS).float().to(device)
        told = _corrupted(tokens, prior.levels, config.corruption, state.rng, portion)
        shape = (prior.config.layers, 2, size, 1, prior.config.width)
        masks = portion.of(_masks(shape, dropout, state.rng), 2).to(device)
        with autocast(device):
            nats = ask(tokens, labels, clusters, features, kinds, told, masks)
        optimizer.zero_grad(set_to_none=True)
        (nats / int(prior.real.sum())).backward()
        (mean,) = ranks.average(optimizer, nats)
        nn.utils.clip_grad_norm_(prior.parameters(), 1.0)
        optimizer.step()
        average.update(prior)
        state.step += 1
        losses = {"bits": mean / math.log(2)}
        if state.step % every == 0 or state.step == steps:
            losses["held_out_bits"] = held_out_bits(average.module, held_out, config.blur, device, ranks=ranks)
            best.update(average.module, losses["held_out_bits"])
        yield StageStep("prior", state.step, steps, losses)


def _rate(step: int, steps: int) -> float:
    """Rises over 300 steps, or a tenth of them all, and falls along a cosine."""
    rise = max(1, min(RISE, steps // 10))
    return min(1.0, (step + 1) / rise) * (LAST + (1 - LAST) * (1 + math.cos(math.pi * step / steps)) / 2)


def _untold(told: Tensor, nothing: int, share: float, rng: torch.Generator, portion: Portion) -> Tensor:
    dropped = portion.of(torch.rand(portion.whole(len(told)), generator=rng) < share)
    return torch.where(dropped.to(told.device), nothing, told)


def _blurred(features: Tensor, blur: float, rng: torch.Generator, portion: Portion = WHOLE) -> Tensor:
    noise = torch.randn(portion.whole(len(features)), features.shape[1], generator=rng)
    return features + blur * portion.of(noise).to(features.device)


def _corrupted(tokens: Tensor, levels: int, share: float, rng: torch.Generator, portion: Portion) -> Tensor:
    """Tokens (B, T, N) of which a share is replaced by random numbers."""
    shape = (portion.whole(len(tokens)), *tokens.shape[1:])
    chosen = portion.of(torch.rand(*shape[:2], 1, generator=rng) < share)
    other = portion.of(torch.randint(levels, shape, generator=rng))
    return torch.where(chosen.to(tokens.device), other.to(tokens.device), tokens)


def _masks(shape: tuple[int, ...], dropout: float, rng: torch.Generator) -> Tensor:
    # One mask for all tokens of a sample: element by element takes longer than the network's own work.
    return (torch.rand(shape, generator=rng) >= dropout).float() / (1 - dropout)


@torch_defaults(painting=True)
def held_out_bits(
    prior: TokenPrior,
    codes: CodeSet,
    blur: float,
    device: torch.device,
    ranks: Ranks = ALONE,
) -> float:
    """Mean bits of a code, class, cluster and features being told, the last with the same noise each time."""
    features = _blurred(codes.features, blur, torch.Generator().manual_seed(0))

    def ask(part: slice) -> Tensor:
        tokens = prior.tokenize(codes.codes[part]).long()
        with autocast(device):
            logits = prior(tokens, codes.labels[part], codes.clusters[part], features[part])
        return prior.nats(logits, tokens).double().sum()

    parts = [slice(start, start + LOOKED_AT) for start in range(0, len(codes), LOOKED_AT)]
    return sum(nats.item() for nats in ranks.map(ask, parts)) / len(codes) / math.log(2)
