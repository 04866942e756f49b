"""Training on a generator's pictures, in a script that was written for real ones.

* ``dataset``: :class:`DistilledDataset`, map-style, in place of torchvision's. Begin here.
* ``named``: the bundled sets under torchvision's signatures, such as :class:`DistilledCIFAR10`.
* ``items``: one by one or in batches; ``askers``: whether torch itself asks for a batch. ``blocks``: pictures painted a
  few at a time.
* ``columns``: ``data`` and ``targets``, read, edited or assigned; ``forms``: as torchvision's sets hold them.
* ``parts``: a set parted in two that never show the same picture.
* ``passes``: new pictures in each pass, whoever draws them. ``misuse``: who is warned that they are new.
* ``serials``: which picture stands where in an epoch.
* ``choosing``: whether pictures are kept. ``cache``: those of stored codes, made once. ``slots``: those of an epoch.
  ``keeping``: the base class of both. ``memory``: tensors that processes share.
* ``loader``: :class:`DistilledLoader`, batches made on the device where you train. ``batches``: those of a pass.
  ``ahead``: made while you train.
* ``shares``: which part of an epoch falls to which rank. ``orders``: its indices, as the loader's sampler.
* ``progress``: where the loader's pass stands. ``pictures``: those of its epoch by index, as its dataset.
* ``opening``: what both are opened with.

Imports ``generator`` and the floors below it.
"""

from __future__ import annotations

from dim_data.loading.cache import PictureCache
from dim_data.loading.dataset import DistilledDataset
from dim_data.loading.loader import DistilledLoader
from dim_data.loading.named import (
    DistilledCIFAR10,
    DistilledEuroSAT,
    DistilledFashionMNIST,
    DistilledMNIST,
    DistilledSVHN,
)
from dim_data.loading.serials import check_refresh, serials_at
from dim_data.loading.slots import SlotCache

__all__ = [
    "DistilledCIFAR10",
    "DistilledDataset",
    "DistilledEuroSAT",
    "DistilledFashionMNIST",
    "DistilledLoader",
    "DistilledMNIST",
    "DistilledSVHN",
    "PictureCache",
    "SlotCache",
    "check_refresh",
    "serials_at",
]
