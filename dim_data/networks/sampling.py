"""Codes drawn from a :class:`~dim_data.networks.TokenPrior`, each a pure function of its own noise.

Rows are drawn in groups of one size, and on a CPU each group by a single thread, as many groups at a time as torch has
threads: kernels may sum in another order for another shape or number of threads, and a sum that differs in its last bit
may turn a near tie into another number, and with it all that follow.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dim_data.networks.compute import fast_dtype, in_float32
from dim_data.networks.priors import PriorBlock, TokenPrior
from dim_data.networks.threads import side_by_side

__all__ = ["Noise", "group_rows", "sample_codes"]

Noise = Callable[[Tensor, int], Tensor]
"""(keys int64 (R,), place of a token) to Gumbel noise, float32 (R, N, levels): a pure function, each row of its key."""

ROWS = {"cpu": 128, "cuda": 2048}
"""Codes in a group at most, by kind of device: the more, the more often a weight is used that was fetched."""
FLOATS = {"cpu": 1 << 25, "cuda": 1 << 30}
"""Numbers held for a group at most, about: where codes have many tokens a group has fewer rows."""


def group_rows(prior: TokenPrior, device: torch.device) -> int:
    """Rows of a group: a power of two that depends on the prior's size and on the kind of device alone."""
    config = prior.config
    cache = 2 * config.layers * prior.tokens * config.width
    row = cache + prior.numbers * (config.hidden + 4 * prior.levels)
    fit = min(ROWS.get(device.type, 128), FLOATS.get(device.type, 1 << 26) // row)
    return 1 << max(0, fit.bit_length() - 1)


@torch.no_grad()
def sample_codes(
    prior: TokenPrior, labels: Tensor, clusters: Tensor, features: Tensor | None, keys: Tensor, noise: Noise
) -> Tensor:
    """Draw a code of the stored kind for each row.

    On one machine bit-equal for equal arguments, however rows are batched and whatever the number of threads.

    Args:
        prior: Computes in :func:`~dim_data.networks.fast_dtype`, whatever its mode and the type of its weights.
        labels: int64 (B,), on the prior's device; see :meth:`~dim_data.networks.TokenPrior.condition`.
        clusters: int64 (B,), as told to the transformer.
        features: Float (B, D), as told to the transformer; ``None`` if it is told none.
        keys: int64 (B,), handed to ``noise``.
        noise: Called for the rows of each group and for each token.

    Returns:
        uint8 (B, *shape), each below ``levels``.
    """
    device, count, prior = labels.device, len(labels), in_float32(prior)
    rows = group_rows(prior, device)
    seen = torch.zeros(count, 0, device=device) if features is None else features
    inputs = (labels, clusters, seen, keys)
    padded = [torch.cat([x, x.new_zeros(-count % rows, *x.shape[1:])]).split(rows) for x in inputs]
    groups = list(zip(*padded, strict=True)) if count else []
    with _no_autocast(device):
        weights = _Weights.of(prior, fast_dtype(device))

    def draw(group: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
        with torch.no_grad(), _no_autocast(device):
            return prior.untokenize(_Group(prior, weights, *group, noise).draw())

    drawn = side_by_side(draw, groups, device)
    return torch.cat([*drawn, torch.zeros(0, *prior.shape, dtype=torch.uint8, device=device)])[:count]


def _no_autocast(device: torch.device) -> AbstractContextManager[None]:
    return torch.autocast(device.type, enabled=False)


@dataclass(frozen=True)
class _Weights:
    """A prior's weights as its sampler multiplies by them: matrices (inputs, outputs)."""

    blocks: tuple[tuple[PriorBlock, Tensor, Tensor, Tensor, Tensor], ...]
    head: Tensor
    before: Tensor

    @classmethod
    def of(cls, prior: TokenPrior, dtype: torch.dtype) -> _Weights:
        def ready(layer: nn.Linear) -> Tensor:
            return layer.weight.to(dtype).T

        blocks = [b for b in prior.blocks if isinstance(b, PriorBlock)]
        return cls(
            tuple((b, ready(b.qkv), ready(b.out), ready(b.up), ready(b.down)) for b in blocks),
            ready(prior.head),
            (prior.before * prior.earlier).float(),
        )


class _Group:
    """Rows that are drawn together, and how far they are.

    Args:
        prior: The network that they are drawn from.
        weights: Its weights, as the sampler multiplies by them.
        labels: int64 (R,).
        clusters: int64 (R,).
        features: float (R, D).
        keys: int64 (R,).
        noise: Gives the Gumbel noise of a token for each key.
    """

    def __init__(
        self,
        prior: TokenPrior,
        weights: _Weights,
        labels: Tensor,
        clusters: Tensor,
        features: Tensor,
        keys: Tensor,
        noise: Noise,
    ) -> None:
        config, self.rows = prior.config, len(labels)
        self.prior, self.weights, self.keys, self.noise, self.heads = prior, weights, keys, noise, config.heads
        self.told = prior.condition(labels, clusters, features if features.shape[1] else None).float()
        # Keys and values of the tokens so far.
        shape = (config.layers, 2, self.rows * self.heads, prior.tokens, config.width // self.heads)
        self.cache = torch.empty(shape, dtype=torch.float32, device=labels.device)

    def draw(self) -> Tensor:
        """Tokens, uint8 (R, T, N)."""
        drawn, seen = [], self.told
        for place in range(self.prior.tokens):
            x = seen + self.prior.position[place] + self.told
            for layer in range(len(self.weights.blocks)):
                self._advance(x, layer, place)
            onehot = self._numbers(x, place)
            drawn.append(onehot.unflatten(1, (self.prior.numbers, -1)).argmax(2).to(torch.uint8))
            seen = onehot @ self.prior.inputs.weight.T
        return torch.stack(drawn, 1)

    def _advance(self, x: Tensor, layer: int, place: int) -> None:
        """Pass a layer, in place: what :class:`~dim_data.networks.priors.PriorBlock` does, for one token."""
        block, qkv, out, up, down = self.weights.blocks[layer]
        batch, dtype = self.rows * self.heads, qkv.dtype
        query, key, value = (_norm(x, block.norm1, dtype) @ qkv).float().view(self.rows, 3, -1).unbind(1)
        keys, values = self.cache[layer].unbind()
        keys[:, place], values[:, place] = key.reshape(batch, -1), value.reshape(batch, -1)
        keys, values = keys[:, : place + 1], values[:, : place + 1]
        scores = torch.bmm(query.reshape(batch, 1, -1), keys.transpose(1, 2)).mul_(keys.shape[2] ** -0.5)
        mixed = torch.bmm(scores.softmax(2), values).view(self.rows, -1).to(dtype)
        x.add_(mixed @ out).add_(block.out.bias)
        fed = torch.addmm(block.up.bias.to(dtype), _norm(x, block.norm2, dtype), up).relu_().square_()
        x.add_(fed @ down).add_(block.down.bias)

    def _numbers(self, x: Tensor, place: int) -> Tensor:
        """Draw the numbers of a token, one after the other: float32 (R, N * levels), one-hot."""
        prior, size, levels, dtype = self.prior, self.prior.config.hidden, self.prior.levels, self.weights.head.dtype
        hidden = torch.addmm(prior.head.bias.to(dtype), _norm(x, prior.norm, dtype), self.weights.head).float()
        noise = self.noise(self.keys, place) + prior.bias
        onehot = hidden.new_zeros((self.rows, prior.numbers * levels))
        for number, real in enumerate(prior.real[place].tolist()):
            start, stop = number * levels, number * size
            if not real:
                onehot[:, start] = 1
                continue
            # A product with what was drawn so far costs less than adding to all that is still to come.
            before = self.weights.before[:start, stop : stop + size]
            told = torch.addmm(hidden[:, stop : stop + size], onehot[:, :start], before).relu_().square_()
            scores = torch.addmm(noise[:, number], told, prior.last[number])
            onehot[:, start : start + levels].scatter_(1, scores.argmax(1, keepdim=True), 1.0)
        return onehot


def _norm(x: Tensor, norm: nn.LayerNorm, dtype: torch.dtype) -> Tensor:
    return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps).to(dtype)
