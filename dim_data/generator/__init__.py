"""The waist: a generator, between those who make one and those who train on it.

* ``model``: :class:`Generator`, the artifact, saved and loaded. Begin here.
* ``painting``: from (labels, serials, seed) to pictures, by way of latents and a decoder.
* ``sources``: where latents come from, one file for each kind: a new kind goes there.
* ``deriving``: other latents for the same decoder. ``fewer``: some codes of each class.
* ``storing``: weights in a file and back, bit for bit.
* ``names``: where a generator is: a folder, a bundled name, a Hub id.
* ``draws``: random numbers that are pure functions of integers. ``labelling``: soft labels.
* ``facts``, ``grids``: what to say and show of a generator.

Imports ``hub`` and the floors below it.
"""

from __future__ import annotations

from dim_data.generator.deriving import check_teacher
from dim_data.generator.draws import bank_index, hash_keys, permute
from dim_data.generator.facts import describe, read_training
from dim_data.generator.fewer import class_shares, drawn_rows
from dim_data.generator.grids import sample_grid, sample_png, save_grid
from dim_data.generator.labelling import blended, opinions
from dim_data.generator.model import Generator
from dim_data.generator.names import bundled_names
from dim_data.generator.painting import CHUNK
from dim_data.generator.sources import LearnedPrior

__all__ = [
    "CHUNK",
    "Generator",
    "LearnedPrior",
    "bank_index",
    "blended",
    "bundled_names",
    "check_teacher",
    "class_shares",
    "describe",
    "drawn_rows",
    "hash_keys",
    "opinions",
    "permute",
    "read_training",
    "sample_grid",
    "sample_png",
    "save_grid",
]
