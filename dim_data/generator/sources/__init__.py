"""Where latents come from: one file for each kind of source.

A new source is a class in a file of its own, a subclass of :class:`LatentSource` (``base``), and a line in
:data:`SOURCES`. What others must know of it they ask it.

* ``noise``: normal numbers as they come. ``gaussian``: shaped into codes by a Gaussian for each class.
* ``prior``: written number by number by a network that has learned what codes are like.
* ``codes``: stored, one for each training image that is remembered.
"""

from __future__ import annotations

from dim_data.generator.sources.base import LatentSource
from dim_data.generator.sources.codes import StoredCodes
from dim_data.generator.sources.gaussian import Gaussian, fit_gaussian
from dim_data.generator.sources.noise import Noise
from dim_data.generator.sources.prior import LearnedPrior

__all__ = ["SOURCES", "LatentSource", "LearnedPrior", "StoredCodes", "fit_gaussian"]

SOURCES: dict[str, type[LatentSource]] = {
    "noise": Noise,
    "gaussian": Gaussian,
    "prior": LearnedPrior,
    "codes": StoredCodes,
}
"""The class of each ``GeneratorConfig.kind``."""
