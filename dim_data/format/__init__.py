"""The artifact on disk: ``config.json`` and ``model.safetensors``, written compactly and read with suspicion.

* ``config``: :class:`GeneratorConfig`, all that is needed to rebuild a network. Begin here.
* ``reading``: what of a file may be trusted. ``files``: names, largest sizes, writing without halves.
* ``weights``, ``rounding``: number formats of weights, int8 and int4 among them. ``latents``: codes packed into bytes.

Imports ``networks`` and ``images``.
"""

from __future__ import annotations

from dim_data.format.config import MAX_RANK, GeneratorConfig
from dim_data.format.files import (
    BEFORE,
    CARD,
    CONFIG,
    MAX_BYTES,
    RESULT,
    RUN,
    SAMPLES,
    TRAINING_CONFIG,
    WEIGHTS,
    check_size,
    check_writable,
    write_atomically,
    write_json,
)
from dim_data.format.latents import from_numbers, pack, packed_width, to_numbers, unpack
from dim_data.format.reading import read_config, read_json, read_weights
from dim_data.format.rounding import round_layers, round_table
from dim_data.format.weights import format_of, kept_weights, packed_weights, unpacked_weights

__all__ = [
    "BEFORE",
    "CARD",
    "CONFIG",
    "MAX_BYTES",
    "MAX_RANK",
    "RESULT",
    "RUN",
    "SAMPLES",
    "TRAINING_CONFIG",
    "WEIGHTS",
    "GeneratorConfig",
    "check_size",
    "check_writable",
    "format_of",
    "from_numbers",
    "kept_weights",
    "pack",
    "packed_weights",
    "packed_width",
    "read_config",
    "read_json",
    "read_weights",
    "round_layers",
    "round_table",
    "to_numbers",
    "unpack",
    "unpacked_weights",
    "write_atomically",
    "write_json",
]
