"""Networks and how to run them fast.

* ``decoders``: from latents to images, by name in :data:`ARCHITECTURES`: a new decoder is a class there. Begin here.
* ``classifiers``: those that are trained on pictures, by name in :data:`CLASSIFIERS`. ``building``: one's own.
* ``priors``: from class to latents, number by number; ``sampling``: drawing from them.
* ``muon``: an optimizer. ``compute``: number formats, devices, compilation. ``rng``: torch's global random numbers.
* ``checks``: of one field or argument. ``bounds``: how large each option of a config may be.
* ``versions``: whether weights have changed. ``threads``: sharing out work. ``handing``: tensors that spawned processes
  share.
* ``ranks``: several processes at one work; ``meeting``: how they keep step, ``joining``: how they come to be several,
  ``norms``: a batch that they share. ``work_queue``: work that they share out without waiting.

Networks are chosen by name, never by code from a repository. Imports ``images`` alone.
"""

from __future__ import annotations

from dim_data.networks.building import (
    build_classifier,
    check_classifier,
    classifier_builder,
    identify_classifier,
    logits_of,
)
from dim_data.networks.checks import check_choice, check_int, check_names, check_number, is_int, plain
from dim_data.networks.classifiers import CLASSIFIERS, ConvNet, usual_convnet
from dim_data.networks.compute import autocast, channels_last, compiled, fast_dtype, in_float32, resolve_device
from dim_data.networks.decoders import ARCHITECTURES, DoublingConv, ResidualBlock, parse_options, reached_sizes
from dim_data.networks.handing import is_spawning, share_as_one_buffer, share_memory
from dim_data.networks.joining import is_first, joined, own_device
from dim_data.networks.meeting import RankError
from dim_data.networks.muon import Muon
from dim_data.networks.norms import share_norms
from dim_data.networks.priors import KINDS, PriorConfig, TokenPrior
from dim_data.networks.ranks import ALONE, Ranks
from dim_data.networks.rng import GlobalRng
from dim_data.networks.sampling import Noise, group_rows, sample_codes
from dim_data.networks.threads import side_by_side
from dim_data.networks.versions import version_of
from dim_data.networks.work_queue import WorkQueue, compare_notes

__all__ = [
    "ALONE",
    "ARCHITECTURES",
    "CLASSIFIERS",
    "KINDS",
    "ConvNet",
    "DoublingConv",
    "GlobalRng",
    "Muon",
    "Noise",
    "PriorConfig",
    "RankError",
    "Ranks",
    "ResidualBlock",
    "TokenPrior",
    "WorkQueue",
    "autocast",
    "build_classifier",
    "channels_last",
    "check_choice",
    "check_classifier",
    "check_int",
    "check_names",
    "check_number",
    "classifier_builder",
    "compare_notes",
    "compiled",
    "fast_dtype",
    "group_rows",
    "identify_classifier",
    "in_float32",
    "is_first",
    "is_int",
    "is_spawning",
    "joined",
    "logits_of",
    "own_device",
    "parse_options",
    "plain",
    "reached_sizes",
    "resolve_device",
    "sample_codes",
    "share_as_one_buffer",
    "share_memory",
    "share_norms",
    "side_by_side",
    "usual_convnet",
    "version_of",
]
