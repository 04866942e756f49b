"""A learned prior: a transformer that writes codes number by number, as those of real images are written.

A code is a map of whole numbers. Patches of it are tokens, in reading order; a causal transformer tells what the
tokens so far leave likely, and inside a token a masked two-layer head predicts its numbers one after the other. What
is learned is an exact likelihood, so priors can be compared in bits: see :mod:`dim_data.networks.sampling` for how
codes are drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dim_data.networks.bounds import bounded, check_bounds

__all__ = ["KINDS", "PriorConfig", "TokenPrior"]

KINDS = ("stored", "mirrored", "shifted")
"""Kinds of code that training tells apart, so that what augmentation shows is never drawn: only ``stored`` is."""
MAX_TOKENS = 256
HEAD = 64


@dataclass(frozen=True)
class PriorConfig:
    """The size of a learned prior.

    Args:
        width: Channels of the transformer: a multiple of 64, or fewer than 64.
        layers: Its blocks.
        hidden: Channels of the head for each number of a token.
        clusters: Parts of a class, drawn by their frequency and told to the transformer; 1 tells the class alone.
        patch: Side of the square of a code map that is one token.
        features: Numbers that say what a classifier sees in a picture, told to the transformer before it writes; 0
            tells none.
        anchors: Features of real images that are kept of each cluster: one of them is drawn, and noise is added to it.

    Raises:
        TypeError: A field is not an int.
        ValueError: A field is out of bounds.
    """

    width: int = bounded(256, 8, 1024)
    layers: int = bounded(8, 1, 32)
    hidden: int = bounded(128, 4, 1024)
    clusters: int = bounded(32, 1, 1024)
    patch: int = bounded(2, 1, 4)
    features: int = bounded(64, 0, 128)
    anchors: int = bounded(64, 1, 4096)

    def __post_init__(self) -> None:
        check_bounds(PriorConfig, asdict(self), "a prior")
        if self.width > HEAD and self.width % HEAD:
            raise ValueError(f"option 'width' of a prior must be a multiple of {HEAD} or less, got {self.width}")

    @property
    def heads(self) -> int:
        """Heads of attention, of 64 channels each."""
        return max(1, self.width // HEAD)

    def to_dict(self) -> dict[str, int]:
        """A JSON-ready mapping that :meth:`from_dict` reads back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PriorConfig:
        """Read a mapping made by :meth:`to_dict`.

        Raises:
            TypeError: It is no mapping, or a value is not an int.
            ValueError: A key is missing or unknown, or a value is out of bounds.
        """
        if not isinstance(values, Mapping):
            raise TypeError(f"a prior's config must be a mapping, got {type(values).__name__}")
        if set(values) != set(cls.__dataclass_fields__):
            raise ValueError(
                f"a prior's config has the keys {sorted(cls.__dataclass_fields__)}, got {sorted(map(str, values))}"
            )
        return cls(**values)


class PriorBlock(nn.Module):
    """Causal self-attention and a feed-forward layer with a squared ReLU, each added to what comes in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, past: Tensor, masks: Tensor | None = None) -> Tensor:
        """(B, T, width) to the same shape.

        Args:
            x: Float (B, T, width).
            past: Bool (T, T), true where a column lies after its row.
            masks: Dropout, float (2, B, 1, width), of the two branches.
        """
        query, key, value = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        # Two products: on a CPU torch's fused attention is several times slower in the backward pass.
        scores = (query @ key.transpose(-1, -2)) * query.shape[-1] ** -0.5
        weights = scores.float().masked_fill(past, -math.inf).softmax(-1).to(value.dtype)
        mixed = self.out((weights @ value).transpose(1, 2).flatten(2))
        x = x + (mixed if masks is None else mixed * masks[0])
        fed = self.down(F.relu(self.up(self.norm2(x))).square())
        return x + (fed if masks is None else fed * masks[1])


class TokenPrior(nn.Module):
    """The distribution of code maps given class and cluster, one number after the other.

    A map whose sides are no multiple of the patch is padded with a level that carries no information: it is neither
    counted in a likelihood nor drawn.

    Args:
        config: Its size.
        shape: Of a code map: (channels, base, base).
        levels: Values that each number of a code takes.
        classes: Number of classes.

    Attributes:
        frequencies: Float (classes, clusters): how often each cluster is drawn, relative to the others of its class.
        anchors: Float (classes * clusters, anchors, features): what features are drawn around, if there are any.
        blur: Float (features,): standard deviation of the noise around these.
        tokens: Number of tokens of a code, T.
        numbers: Numbers of a token, N.
        real: Bool (T, N): false for what is padding.

    Raises:
        ValueError: The code map has more than 256 tokens.
    """

    frequencies: Tensor
    anchors: Tensor
    blur: Tensor
    real: Tensor
    earlier: Tensor

    def __init__(self, config: PriorConfig, shape: tuple[int, ...], levels: int, classes: int) -> None:
        super().__init__()
        channels, base, _ = shape
        self.config, self.shape, self.levels, self.classes = config, shape, levels, classes
        self.side = math.ceil(base / config.patch)
        self.tokens, self.numbers = self.side**2, config.patch**2 * channels
        if self.tokens > MAX_TOKENS:
            raise ValueError(
                f"patch={config.patch} makes {self.tokens} tokens of codes of {base}x{base}; "
                f"the limit is {MAX_TOKENS}: take a larger patch"
            )
        width, hidden, wide = config.width, config.hidden, self.numbers * levels
        self.inputs = nn.Linear(wide, width, bias=False)
        # The last row of both stands for "not told".
        self.label = nn.Embedding(classes + 1, width)
        self.cluster = nn.Embedding(classes * config.clusters + 1, width)
        self.kind = nn.Embedding(len(KINDS), width)
        self.feature = nn.Linear(config.features, width, bias=False) if config.features else None
        self.position = nn.Parameter(torch.empty(self.tokens, width))
        self.blocks = nn.ModuleList(PriorBlock(width, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, self.numbers * hidden)
        self.before = nn.Parameter(torch.empty(wide, self.numbers * hidden))
        self.last = nn.Parameter(torch.empty(self.numbers, hidden, levels))
        self.bias = nn.Parameter(torch.empty(self.numbers, levels))
        self.register_buffer("frequencies", torch.ones(classes, config.clusters))
        if config.features:
            shape_of_anchors = classes * config.clusters, config.anchors, config.features
            self.register_buffer("anchors", torch.zeros(shape_of_anchors))
            self.register_buffer("blur", torch.ones(config.features))
        padding = F.pad(torch.ones(1, *shape), self._padding(base))
        self.register_buffer("real", self._patches(padding)[0].bool(), persistent=False)
        # What comes before: number i of a token is told the numbers 0 to i - 1.
        rows, columns = torch.arange(wide) // levels, torch.arange(self.numbers * hidden) // hidden
        self.register_buffer("earlier", rows[:, None] < columns, persistent=False)
        self._initialize()

    @torch.no_grad()
    def _initialize(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for parameter in (self.position, self.before):
            nn.init.normal_(parameter, std=0.02)
        self.before.mul_(self.earlier)
        nn.init.normal_(self.last, std=self.config.hidden**-0.5)
        nn.init.zeros_(self.bias)

    def _padding(self, base: int) -> tuple[int, int, int, int]:
        more = self.side * self.config.patch - base
        return 0, more, 0, more

    def _patches(self, maps: Tensor) -> Tensor:
        """(B, channels, S, S) to (B, T, N): places of a patch first, then channels."""
        patch = self.config.patch
        split = maps.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))
        return split.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)

    def features(self, clusters: Tensor, places: Tensor, noise: Tensor) -> Tensor | None:
        """Features of pictures of ``clusters``: anchors, blurred; ``None`` if there are none.

        Args:
            clusters: int64 (B,), as :meth:`condition` is told.
            places: int64 (B,), each in [0, config.anchors): which of the cluster's anchors.
            noise: Normal float32 (B, config.features).
        """
        if self.feature is None:
            return None
        return self.anchors[clusters, places].float() + self.blur.float() * noise

    def tokenize(self, codes: Tensor) -> Tensor:
        """Code maps, whole numbers (B, *shape) below ``levels``, to tokens (B, T, N) of the same type."""
        return self._patches(F.pad(codes, self._padding(self.shape[1])))

    def untokenize(self, tokens: Tensor) -> Tensor:
        """Invert :meth:`tokenize`: (B, T, N) to code maps (B, *shape), without the padding."""
        channels, base, _ = self.shape
        patch, side = self.config.patch, self.side
        split = tokens.unflatten(2, (patch, patch, channels)).unflatten(1, (side, side))
        return split.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)[:, :, :base, :base].contiguous()

    def onehot(self, tokens: Tensor) -> Tensor:
        """Whole numbers (..., N) to float32 (..., N * levels)."""
        return F.one_hot(tokens.long(), self.levels).flatten(-2).float()

    def condition(
        self, labels: Tensor, clusters: Tensor, features: Tensor | None = None, kinds: Tensor | None = None
    ) -> Tensor:
        """What every token is told: float (B, width).

        Args:
            labels: int64 (B,), each in [0, classes]; ``classes`` tells none.
            clusters: int64 (B,): ``label * config.clusters + cluster``; ``classes * config.clusters`` tells none.
            features: Float (B, config.features); ``None`` and zeros tell none.
            kinds: int64 (B,): places in :data:`KINDS`; ``None`` stands for stored codes.
        """
        kind = self.kind.weight[0] if kinds is None else self.kind(kinds)
        told = self.label(labels) + kind + self.cluster(clusters)
        return told if features is None or self.feature is None else told + self.feature(features)

    def forward(
        self,
        tokens: Tensor,
        labels: Tensor,
        clusters: Tensor,
        features: Tensor | None = None,
        kinds: Tensor | None = None,
        inputs: Tensor | None = None,
        masks: Tensor | None = None,
    ) -> Tensor:
        """Logits of every number of ``tokens``, given all before it: float (B, T, N, levels).

        Args:
            tokens: Whole numbers (B, T, N).
            labels: See :meth:`condition`.
            clusters: See :meth:`condition`.
            features: See :meth:`condition`.
            kinds: See :meth:`condition`.
            inputs: What the transformer is told instead of ``tokens``, such as a corrupted copy; (B, T, N).
            masks: Dropout, float (layers, 2, B, 1, width): one mask for each branch, sample and channel.
        """
        told = self.condition(labels, clusters, features, kinds)[:, None]
        seen = self.inputs(self.onehot(tokens if inputs is None else inputs)[:, :-1])
        x = torch.cat([told, seen], 1) + self.position + told
        past = torch.ones(self.tokens, self.tokens, dtype=torch.bool, device=x.device).triu(1)
        for index, block in enumerate(self.blocks):
            x = block(x, past, None if masks is None else masks[index])
        hidden = self.head(self.norm(x)) + F.linear(self.onehot(tokens), (self.before * self.earlier).T)
        hidden = F.relu(hidden).square().unflatten(-1, (self.numbers, -1))
        return torch.einsum("btnh,nhl->btnl", hidden, self.last.to(hidden.dtype)) + self.bias

    def nats(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """Negative log-likelihood of ``tokens`` (B, T, N) under :meth:`forward`'s logits: float32 (B,)."""
        each = F.cross_entropy(logits.float().flatten(0, 2), tokens.long().flatten(), reduction="none")
        return (each.view(tokens.shape) * self.real).flatten(1).sum(1)
