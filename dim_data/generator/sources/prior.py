"""Latents that a learned prior writes, number by number: noise, through a transformer of codes."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor, nn

from dim_data.format import GeneratorConfig, from_numbers, to_numbers
from dim_data.generator.draws import hash_keys, normal, uniform
from dim_data.generator.sources.base import LatentSource
from dim_data.networks import PriorConfig, TokenPrior, group_rows, parse_options, sample_codes, version_of

__all__ = ["LearnedPrior"]

Key = tuple[int, int, int]
"""Seed, label and serial."""

KEPT, KEPT_BYTES = 1 << 16, 1 << 25
"""Codes kept that were drawn before they are asked for, and notes of those that were, at most."""
LAST_SERIAL = (1 << 63) - 1
THREADS = 4
"""Groups begun for a request that one would do for, at most: as many as threads can draw side by side."""


class LearnedPrior(LatentSource):
    """Codes drawn from a :class:`~dim_data.networks.TokenPrior`, no two alike.

    They are drawn in groups of one size (:func:`~dim_data.networks.group_rows`), which a request seldom fills: what is
    left of a group is other serials of the classes asked for, which are kept until they are asked for.

    Attributes:
        prior: The network.
    """

    def __init__(self, config: GeneratorConfig, latent_shape: tuple[int, ...]) -> None:
        super().__init__(config, latent_shape)
        levels: int = parse_options(config.architecture, config.options).code_levels  # type: ignore[union-attr]
        size = config.prior or PriorConfig()
        self.prior = TokenPrior(size, latent_shape, levels, config.spec.num_classes)
        self._drawn: dict[Key, Tensor | None] = {}  # None: drawn and handed out
        self._drawn_by: Any = None

    @property
    def summary(self) -> str:
        """What it is, in a few words."""
        return f"noise, through a prior of {sum(p.numel() for p in self.prior.parameters()):,} parameters"

    def latents(self, labels: Tensor, serials: Tensor, seed: int) -> Tensor:
        """See :meth:`LatentSource.latents`: on the levels of a code, from -1 to 1."""
        keys = [(seed, *pair) for pair in zip(labels.tolist(), serials.tolist(), strict=True)]
        asked, weights = list(dict.fromkeys(keys)), version_of(self.prior)
        if weights != self._drawn_by:
            self._drawn, self._drawn_by = {}, weights
        elif any(self._drawn.get(key, key) is None for key in asked):  # asked for again: a round begins
            self._drawn = {key: code for key, code in self._drawn.copy().items() if code is not None}
        # Threads may share this source: what two of them ask for at once, both draw.
        drawn = self._drawn
        found = {key: code for key in asked if (code := drawn.get(key)) is not None}
        drawn.update(dict.fromkeys(asked))
        if missing := [key for key in asked if key not in found]:
            coming = self._coming(missing, drawn, labels.device)
            codes = self._draw([*missing, *coming], seed, labels.device)
            found.update(zip(missing, codes.unbind(), strict=False))
            drawn.update(zip(coming, codes[len(missing) :].clone().unbind(), strict=True))
            for key in list(drawn)[: max(0, len(drawn) - min(KEPT, KEPT_BYTES // self.size))]:
                drawn.pop(key, None)
        codes = torch.stack([found[key] for key in keys]) if keys else labels.new_zeros(0, *self.latent_shape)
        return from_numbers(codes, self.prior.levels)

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

    def _coming(self, asked: Sequence[Key], drawn: Container[Key], device: torch.device) -> list[Key]:
        """What fills up the groups: of the classes ``asked`` for, the next serials that were not ``drawn``.

        They count from the least that is asked for: in an epoch that is shuffled, what was left out below the largest
        is asked for soon, and what lies past it may be long in coming.
        """
        rows = group_rows(self.prior, device) * (min(THREADS, torch.get_num_threads()) if device.type == "cpu" else 1)
        least = {key[1]: key for key in sorted(asked, reverse=True)}

        def rest(seed: int, label: int, first: int) -> Iterator[Key]:
            keys = ((seed, label, serial) for serial in range(first, LAST_SERIAL + 1))
            return (key for key in keys if key not in drawn)

        turns = zip(*(rest(*key) for key in least.values()), strict=False)
        return list(islice(chain.from_iterable(turns), -len(asked) % rows))

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
        return {**self.__dict__, "_drawn": {}, "_drawn_by": None}

    def networks(self, latents: Tensor, labels: Tensor) -> dict[str, tuple[nn.Module, list[tuple[Tensor, ...]]]]:
        """See :meth:`LatentSource.networks`."""
        tokens = self.prior.tokenize(to_numbers(latents, self.prior.levels).long())
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
