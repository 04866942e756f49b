"""Training on a generator's pictures, in a script that was written for real ones.

* ``dataset``: :class:`DistilledDataset`, map-style, in place of torchvision's. Begin here.
* ``loader``: :class:`DistilledLoader`, batches made on the device where you train.
* ``passes``: new pictures in each pass, whoever draws them. ``cache``: pictures decoded once.
* ``shares``: which part of an epoch falls to which rank. ``orders``: its indices, as the loader's sampler.
* ``progress``: where the loader's pass stands. ``pictures``: those of its epoch by index, as its dataset.

Imports ``generator`` and the floors below it.
"""

from __future__ import annotations

from dim_data.loading.cache import PictureCache
from dim_data.loading.dataset import DistilledDataset
from dim_data.loading.loader import DistilledLoader

__all__ = ["DistilledDataset", "DistilledLoader", "PictureCache"]
