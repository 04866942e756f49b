"""What several ranks must agree on before they share a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from dim_data.distillation.presets import DistillConfig
from dim_data.networks import Ranks
from dim_data.protocol import differences

__all__ = ["check_batches", "check_same"]


def check_batches(config: DistillConfig, ranks: Ranks) -> None:
    """Refuse batches that cannot be shared out equally.

    Raises:
        ValueError: There are such; the message names the setting.
    """
    sizes = {f"{config.first}.batch_size": getattr(config, config.first).batch_size}
    if config.matching.steps:
        sizes["matching.batch_size"] = config.matching.batch_size
    if config.learns_prior:
        sizes["prior.batch_size"] = config.prior.batch_size
    for name, size in sizes.items():
        if size % ranks.size:
            more = -(-size // ranks.size) * ranks.size
            raise ValueError(
                f"{size} images a step cannot be shared out equally to {ranks.size} ranks: let {name} be a multiple, "
                f"such as --set {name}={more}, or start another number of processes"
            )


def check_same(ranks: Ranks, identity: Mapping[str, Any], **more: Any) -> None:
    """Compare what each rank was given, before any of it is used.

    Args:
        ranks: Who.
        identity: What the run is, in plain values.
        more: What else must be the same.

    Raises:
        ValueError: One rank was given something else than most were; the message names it.
    """
    found = ranks.odd_one({**identity, **more, "torch": torch.__version__})
    if found is not None:
        rank, theirs, usual = found
        named = differences(theirs, usual).replace(" there, ", f" on rank {rank}, ").replace(" here)", " on others)")
        raise ValueError(f"ranks share a run where all were given the same, but rank {rank} differs in {named}")
