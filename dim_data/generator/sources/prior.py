"""Latents that a learned prior writes, number by number: noise, through a transformer of codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dim_data.format import GeneratorConfig
from dim_data.generator.draws import hash_keys, normal, uniform
from dim_data.generator.sources.base import LatentSource
from dim_data.networks import PriorConfig, TokenPrior, group_rows, parse_options, sample_codes, version_of

__all__ = ["LearnedPrior"]

Key = tuple[int, int, int]
"""Seed, label and serial."""

AHEAD_ROWS, AHEAD_BYTES = 8192, 1 << 24
"""Codes kept that were drawn before they were asked for, at most."""
THREADS = 4
"""Groups begun for a request that one would do for, at most: as many as threads can draw side by side."""


class LearnedPrior(LatentSource):
    """Codes drawn from a :class:`~dim_data.networks.TokenPrior`, no two alike.

    They are drawn in groups of one size (:func:`~dim_data.networks.group_rows`), which a request seldom fills: what is
    left of a group is the next serials of the classes asked for, which are kept until they are asked for.

    Attributes:
        prior: The network.
    """

    def __init__(self, config: GeneratorConfig, latent_shape: tuple[int, ...]) -> None:
        super().__init__(config, latent_shape)
        levels: int = parse_options(config.architecture, config.options).code_levels  # type: ignore[union-attr]
        size = config.prior or PriorConfig()
        self.prior = TokenPrior(size, latent_shape, levels, config.spec.num_classes)
        self._ahead: dict[Key, Tensor] = {}
        self._ahead_of: Any = None

    @property
    def summary(self) -> str:
        """What it is, in a few words."""
        return f"noise, through a prior of {sum(p.numel() for p in self.prior.parameters()):,} parameters"

    def latents(self, labels: Tensor, serials: Tensor, seed: int) -> Tensor:
        """See :meth:`LatentSource.latents`: on the levels of a code, from -1 to 1."""
        asked = [(seed, *pair) for pair in zip(labels.tolist(), serials.tolist(), strict=True)]
        weights = version_of(self.prior)
        known = self._ahead if weights == self._ahead_of else {}
        missing = list(dict.fromkeys(key for key in asked if key not in known))
        found = known
        if missing:
            coming = self._coming(missing, labels.device)
            drawn = self._draw([*missing, *coming], seed, labels.device)
            found = {**known, **dict(zip(missing, drawn.unbind(), strict=False))}
            ahead = dict(zip(coming, drawn[len(missing) :].clone().unbind(), strict=True))
            full = len(known) + len(ahead) > min(AHEAD_ROWS, AHEAD_BYTES // self.size)
            # A new mapping each time, so that threads may share this source.
            self._ahead, self._ahead_of = ahead if full else {**known, **ahead}, weights
        codes = torch.stack([found[key] for key in asked]) if asked else labels.new_zeros(0, *self.latent_shape)
        return codes.float() / (self.prior.levels - 1) * 2 - 1

    def clusters(self, labels: Tensor, serials: Tensor, seed: int) -> Tensor:
        """The cluster that the code of each picture is drawn from: int64 (B,), as the prior is told.

        Args:
            labels: See :meth:`latents`.
            serials: See :meth:`latents`.
            seed: See :meth:`latents`.
        """
        limits = self.prior.frequencies.double().cumsum(1)[labels]
        draws = uniform(hash_keys(seed, labels, serials), 1).double() * limits[:, -1:]
        return labels * limits.shape[1] + (limits <= draws).sum(1).clamp(max=limits.shape[1] - 1)

    def conditions(self, labels: Tensor, serials: Tensor, seed: int) -> tuple[Tensor, Tensor | None]:
        """What the prior is told besides the class when it draws these pictures' codes: clusters and features.

        Args:
            labels: See :meth:`latents`.
            serials: See :meth:`latents`.
            seed: See :meth:`latents`.

        Returns:
            int64 (B,) and float32 (B, D), or ``None`` where there are no features.
        """
        keys, clusters = hash_keys(seed, labels, serials), self.clusters(labels, serials, seed)
        places = (uniform(keys, 2)[:, 1] * self.prior.config.anchors).long()
        noise = normal(hash_keys(0, keys), self.prior.config.features)
        return clusters, self.prior.features(clusters, places, noise)

    def _coming(self, asked: Sequence[Key], device: torch.device) -> list[Key]:
        """The next serials of the classes ``asked`` for, as many as fill up the groups."""
        rows = group_rows(self.prior, device) * (min(THREADS, torch.get_num_threads()) if device.type == "cpu" else 1)
        seed, last = asked[0][0], {label: serial for _, label, serial in sorted(asked)}
        count, labels = -len(asked) % rows, list(last)
        return [(seed, y, last[y] + 1 + i // len(labels)) for i in range(count) for y in [labels[i % len(labels)]]]

    def _draw(self, asked: Sequence[Key], seed: int, device: torch.device) -> Tensor:
        """Codes, uint8 (B, *latent_shape)."""
        labels, serials = torch.tensor([key[1:] for key in asked], dtype=torch.int64, device=device).T
        clusters, features = self.conditions(labels, serials, seed)
        return sample_codes(self.prior, labels, clusters, features, hash_keys(seed, labels, serials), self._noise)

    def _noise(self, keys: Tensor, place: int) -> Tensor:
        """Gumbel noise of the token at ``place``: float32 (R, N, levels)."""
        shape = (self.prior.numbers, self.prior.levels)
        draws = (uniform(hash_keys(place + 1, keys), shape[0] * shape[1]) + 2.0**-25).clamp_(max=1 - 2.0**-24)
        return draws.log_().neg_().log_().neg_().unflatten(1, shape)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_ahead": {}, "_ahead_of": None}

    def networks(self, latents: Tensor, labels: Tensor) -> dict[str, tuple[nn.Module, list[tuple[Tensor, ...]]]]:
        """See :meth:`LatentSource.networks`."""
        tokens = self.prior.tokenise(((latents + 1) / 2 * (self.prior.levels - 1)).round().long())
        clusters = labels * self.prior.config.clusters
        inputs = [tokens, labels, clusters]
        if self.prior.config.features:
            inputs.append(self.prior.anchors[clusters, 0])
        return {"prior": (self.prior, list(zip(*(x.split(64) for x in inputs), strict=True)))}

    def tables(self) -> dict[str, Tensor]:
        """See :meth:`LatentSource.tables`: anchors, which are told with more noise than rounding makes."""
        return {"prior.anchors": self.prior.anchors} if self.prior.config.features else {}

    def check(self) -> None:
        """See :meth:`LatentSource.check`."""
        frequencies = self.prior.frequencies
        if bool((frequencies < 0).any()) or not bool((frequencies.sum(1) > 0).all()):
            raise ValueError("'prior.frequencies' must not be negative, and of each class one must be positive")
