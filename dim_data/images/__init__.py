"""Real images: what is known of a set, reading it, augmenting it.

* ``specs``: :class:`ImageSpec`, the facts about a set (classes, size, statistics), once, as data. Begin here.
* ``real``: :func:`load_real`, the one reader of whatever labelled images come in; ``labelled``: what it hands out.
* Sources: ``folders``, ``arrays``, ``npz``, ``datasets`` and their ``tables``. A new kind of source is a module beside
  them that makes a ``Pictures`` of ``pictures``, and a line in ``real``.
* Where they go: ``reading`` into memory; ``keeping`` those that are too many for it in files, ``stores``, of a cache
  folder, ``caches``. ``rows``: :class:`ImageRows`, what stands for a tensor then. ``slices``: arrays too large to
  convert at once.
* ``notes``: what has to be said of pictures. ``levels``: how bright they are.
* ``pixels``: every kind of pixel as eight bits: a new kind of picture goes there, and its name into ``modes``.
  ``framing``: sizes and crops.
* ``classes``: labels by the names of classes. ``splits``: what train and test are called.
* ``augmentation``: what may be done to images in training. ``portions``: what of a batch is here, where it is shared.
* ``sample``: the real test images that ship with the library.
* ``defaults``: torch's switches as they start out, whatever the caller's are. All floors compute in them. ``locks``:
  folders that one process at a time writes to. ``warn``: warnings that point at the caller.

The lowest floor: it imports nothing of dim_data.
"""

from __future__ import annotations

from dim_data.images.augmentation import AUGMENTATIONS, augment, augment_pair, cut, permitted
from dim_data.images.caches import CachedImages, cache_folder, cached_images, remove_cached
from dim_data.images.defaults import are_default, in_steps, torch_defaults
from dim_data.images.labelled import LabelledImages, digest
from dim_data.images.locks import held
from dim_data.images.portions import WHOLE, Portion
from dim_data.images.real import load_real
from dim_data.images.rows import ImageRows
from dim_data.images.sample import bundled_test_sample
from dim_data.images.specs import CUT_FROM_PHOTOS, HELD_AS, KNOWN_SPECS, MAX_CLASSES, SIZE_RANGE, ImageSpec
from dim_data.images.warn import warn_caller

__all__ = [
    "AUGMENTATIONS",
    "CUT_FROM_PHOTOS",
    "HELD_AS",
    "KNOWN_SPECS",
    "MAX_CLASSES",
    "SIZE_RANGE",
    "WHOLE",
    "CachedImages",
    "ImageRows",
    "ImageSpec",
    "LabelledImages",
    "Portion",
    "are_default",
    "augment",
    "augment_pair",
    "bundled_test_sample",
    "cache_folder",
    "cached_images",
    "cut",
    "digest",
    "held",
    "in_steps",
    "load_real",
    "permitted",
    "remove_cached",
    "torch_defaults",
    "warn_caller",
]
