"""Networks and how to run them fast.

* ``decoders``: from latents to images, by name in :data:`ARCHITECTURES`: a new decoder is a class there. Begin here.
* ``classifiers``: those that are trained on pictures, by name in :data:`CLASSIFIERS`. ``building``: one's own.
* ``muon``: an optimizer. ``compute``: number formats, devices, compilation. ``rng``: torch's global random numbers.

Networks are chosen by name, never by code from a repository. Imports ``images`` alone.
"""

from __future__ import annotations

from dim_data.networks.building import build_classifier, check_classifier, classifier_builder, logits_of
from dim_data.networks.classifiers import CLASSIFIERS, ConvNet
from dim_data.networks.compute import autocast, compiled, fast_dtype, resolve_device
from dim_data.networks.decoders import ARCHITECTURES, DoublingConv, ResidualBlock, parse_options, reached_sizes
from dim_data.networks.muon import Muon
from dim_data.networks.rng import GlobalRng

__all__ = [
    "ARCHITECTURES",
    "CLASSIFIERS",
    "ConvNet",
    "DoublingConv",
    "GlobalRng",
    "Muon",
    "ResidualBlock",
    "autocast",
    "build_classifier",
    "check_classifier",
    "classifier_builder",
    "compiled",
    "fast_dtype",
    "logits_of",
    "parse_options",
    "reached_sizes",
    "resolve_device",
]
