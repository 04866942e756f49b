"""Networks and how to run them fast.

* ``decoders``: from latents to images, by name in :data:`ARCHITECTURES`: a new decoder is a class there. Begin here.
* ``classifiers``: those that are trained on pictures, by name in :data:`CLASSIFIERS`.
* ``priors``: from class to latents, number by number; ``sampling``: drawing from them.
* ``muon``: an optimizer. ``compute``: number formats, devices, compilation. ``bounds``: of what a config may ask for.

Networks are chosen by name, never by code from a repository. Imports ``images`` alone.
"""

from __future__ import annotations

from dim_data.networks.classifiers import CLASSIFIERS, ConvNet, build_classifier
from dim_data.networks.compute import autocast, compiled, fast_dtype, resolve_device
from dim_data.networks.decoders import ARCHITECTURES, DoublingConv, ResidualBlock, parse_options
from dim_data.networks.muon import Muon
from dim_data.networks.priors import KINDS, PriorConfig, TokenPrior
from dim_data.networks.sampling import Noise, group_rows, sample_codes

__all__ = [
    "ARCHITECTURES",
    "CLASSIFIERS",
    "KINDS",
    "ConvNet",
    "DoublingConv",
    "Muon",
    "Noise",
    "PriorConfig",
    "ResidualBlock",
    "TokenPrior",
    "autocast",
    "build_classifier",
    "compiled",
    "fast_dtype",
    "group_rows",
    "parse_options",
    "resolve_device",
    "sample_codes",
]
