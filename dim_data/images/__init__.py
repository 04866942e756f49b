"""Real images: what is known of a set, reading it, augmenting it.

* ``specs``: :class:`ImageSpec`, the facts about a set (classes, size, statistics), once, as data. Begin here.
* ``real``: :func:`load_real`, the one reader of whatever labelled images come in: a new kind of source goes there.
* ``augmentation``: what may be done to images in training.
* ``sample``: the real test images that ship with the library.

The lowest floor: it imports nothing of dim_data.
"""

from __future__ import annotations

from dim_data.images.augmentation import AUGMENTATIONS, augment, augment_pair, permitted
from dim_data.images.real import LabelledImages, digest, load_real
from dim_data.images.sample import bundled_test_sample
from dim_data.images.specs import HELD_AS, KNOWN_SPECS, MAX_CLASSES, SIZE_RANGE, ImageSpec

__all__ = [
    "AUGMENTATIONS",
    "HELD_AS",
    "KNOWN_SPECS",
    "MAX_CLASSES",
    "SIZE_RANGE",
    "ImageSpec",
    "LabelledImages",
    "augment",
    "augment_pair",
    "bundled_test_sample",
    "digest",
    "load_real",
    "permitted",
]
