"""Ways of drawing that are right where a set stays the same, and go wrong where it does not: each is warned of once."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn
from torch.utils.data import Subset, get_worker_info

from dim_data.generator import Generator
from dim_data.images import warn_caller
from dim_data.loading.passes import Passes

__all__ = ["Misuse", "warn_of_one_draw"]

PAIRS = 3
"""Items asked for twice in a row, one after the other, that are no accident."""
RANDOM = ("Random", "AugMix", "AutoAugment", "ColorJitter", "ElasticTransform", "RandAugment", "TrivialAugment")
"""How the names of torchvision's transforms begin that draw anew for each image that they are called with."""


def warn_of_one_draw(transform: Any) -> None:
    """Warn if ``transform``, which maps whole batches, is or holds one of torchvision's random ones."""
    kind = type(transform)
    torchvisions = kind.__module__.startswith("torchvision.transforms")
    if torchvisions and kind.__name__.startswith(RANDOM):
        warn_caller(
            f"{kind.__name__} draws once for all pictures that it is called with, and a loader calls it with a batch: "
            "they are all cropped, flipped or coloured alike. Use it in a DistilledDataset with a DataLoader, or "
            "augment batches by dim_data.images.augment"
        )
    parts = getattr(transform, "transforms", ()) if torchvisions else ()
    if isinstance(transform, nn.Sequential):
        parts = transform
    for part in parts:
        warn_of_one_draw(part)


class Misuse:
    """What was noticed of how a dataset is drawn. For one that is new in each pass.

    Args:
        generator: The dataset's.
        ipc: Images of each class in its epoch.
    """

    def __init__(self, generator: Generator, ipc: int) -> None:
        self._ipc, self._codes = ipc, int(generator.bank.counts.min()) if generator.source.finite else 0
        self.reuse = max(1, self._codes // ipc) if self._codes else -1
        """The first epoch after the first in which pictures of other indices come again; -1: never, or looked at."""
        self._single, self._paired, self._pairs = -1, -1, 0

    def resume(self, epoch: int) -> None:
        """Go on in ``epoch``: a state does not say what was drawn before it."""
        if epoch >= self.reuse:
            self.reuse = -1

    def look_at_parts(self, passes: Passes, asker: Any) -> None:
        """In the epoch :attr:`reuse`: warn if ``asker``, or whoever drew so far, has but a part of some class."""
        epoch, self.reuse = self.reuse, -1
        if passes.pinned is not None and not passes.drew_before(epoch):
            return  # it may be pinned for ever, and within an epoch no picture comes twice
        part, who = passes.in_each_pass(epoch), "indices that are drawn are shown pictures of those that never are"
        if isinstance(asker, Subset):
            part, who = np.zeros(len(part), np.bool_), "this Subset is shown pictures of the other indices"
            part[np.asarray(asker.indices, np.int64)] = True
        classes, worker = part.reshape(self._ipc, -1), get_worker_info()
        if (classes.any(0) & ~classes.all(0)).any() and (worker is None or worker.id == 0):
            warn_caller(
                f"from epoch {epoch} on, {who} too: the generator stores {self._codes} codes of a class, and with "
                f"ipc={self._ipc} they come again. For a validation set use train, validation = dataset.split(0.1), "
                "whose parts share none; or build it with fixed=True"
            )

    def look_at_pairs(self, place: int) -> None:
        """Warn who asks for one item after the other twice, and takes the two pictures for one."""
        if place == self._single:
            self._pairs += place != self._paired  # one that is looked at again and again counts once
            self._single, self._paired = -1, place
            if self._pairs == PAIRS:
                warn_caller(
                    "each item is asked for twice in a row, and the second time it is another picture. Ask once and "
                    "use that twice; or pin the epoch by set_epoch(e), or build the dataset with fixed=True"
                )
            return
        if self._single >= 0:  # the last one came once
            self._pairs = 0
        self._single = place
