"""Number formats of weights on disk: floating-point, 8 bits, and 4 bits with two weights to a byte."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from functools import reduce

import torch
from torch import Tensor

from dim_data.format.latents import pack, packed_width, unpack

__all__ = ["FOUR_BIT_TOP", "format_of", "kept_weights", "packed_weights", "stored_as", "unpacked_weights"]

SCALE = ".scale"
FOUR_BIT_TOP = 7
"""A weight in 4 bits is a whole number from -7 to 7, times the scale of its output."""
FOUR_BIT_LEVELS = 2 * FOUR_BIT_TOP + 1


def _scale_shape(shape: Sequence[int]) -> list[int]:
    """One scale for each output of a layer; of a matrix for each class, one for each of its rows."""
    return list(shape[:2]) if len(shape) == 3 else list(shape[:1])


def _along(scale: Tensor, tensor: Tensor) -> Tensor:
    return scale.reshape(*scale.shape, *(1 for _ in range(tensor.ndim - scale.ndim)))


def packed_weights(
    state: Mapping[str, Tensor], dtype: torch.dtype, four_bits: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """A state as it is written: floating-point tensors as ``dtype``, all others as they are.

    ``torch.int8`` stores layers and matrices in 8 bits with a float32 tensor ``NAME.scale`` beside each: the largest
    weight of an output is 127. Vectors are kept in float16. ``four_bits`` names layers and tables to store in 4 bits,
    and gives the scales, one for each row, whose multiples they are already: see :mod:`dim_data.format.rounding`.
    """
    packed, four_bits = {}, four_bits or {}
    for name, tensor in state.items():
        tensor = tensor.detach().cpu().contiguous()
        if name in four_bits:
            scale = four_bits[name]
            rows = (tensor / _along(scale, tensor)).reshape(scale.numel(), -1)
            packed[name] = pack(rows / FOUR_BIT_TOP, FOUR_BIT_LEVELS).view(*scale.shape, -1)
            packed[name + SCALE] = scale
        elif not tensor.is_floating_point():
            packed[name] = tensor
        elif dtype != torch.int8 or tensor.ndim < 2:
            packed[name] = tensor.to(torch.float16 if dtype == torch.int8 else dtype)
        else:
            rows = tensor.float().reshape(*_scale_shape(tensor.shape), -1)
            scale = rows.abs().amax(-1).clamp(min=1e-12) / 127
            packed[name] = (tensor / _along(scale, tensor)).round().to(torch.int8)
            packed[name + SCALE] = scale
    return packed


def stored_as(expected: Mapping[str, Tensor], kinds: Mapping[str, torch.dtype]) -> dict[str, Tensor]:
    """What a file holds, on the meta device, that stores the ``expected`` tensors in these ``kinds`` of numbers.

    A floating-point tensor found as int8 has its scale beside it, and as uint8 is packed in 4 bits, too.
    """
    stored = {}
    for name, tensor in expected.items():
        kind = kinds.get(name, tensor.dtype)
        if not tensor.is_floating_point() or kind not in (torch.int8, torch.uint8):
            stored[name] = tensor
            continue
        shape, rows = list(tensor.shape), _scale_shape(tensor.shape)
        if kind == torch.uint8:
            shape = [*rows, packed_width(math.prod(shape[len(rows) :]), FOUR_BIT_LEVELS)]
        stored[name] = torch.empty(shape, dtype=kind, device="meta")
        stored[name + SCALE] = torch.empty(rows, device="meta")
    return stored


def unpacked_weights(stored: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The ``expected`` tensors out of what :func:`packed_weights` wrote: those of 8 and 4 bits as float32."""
    state = {}
    for name, wanted in expected.items():
        tensor = stored[name]
        if name + SCALE in stored:
            scale = stored[name + SCALE].float()
            if tensor.dtype == torch.uint8:
                size = wanted.numel() // scale.numel()
                rows = unpack(tensor.flatten(0, -2), FOUR_BIT_LEVELS, size) * FOUR_BIT_TOP
                tensor = rows.round().reshape(wanted.shape)
            tensor = tensor.float() * _along(scale, tensor)
        state[name] = tensor
    return state


def format_of(stored: Mapping[str, Tensor]) -> torch.dtype:
    """The number format of a file's tensors: 8 bits if there are any of 8 or 4; float16 if there are none."""
    scales = {name + SCALE for name in stored}
    kinds = {tensor.dtype for name, tensor in stored.items() if name not in scales}
    return torch.int8 if kinds & {torch.int8, torch.uint8} else reduce(torch.promote_types, kinds or {torch.float16})


def kept_weights(
    written: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    stored: Mapping[str, Tensor],
    kinds: Collection[torch.dtype],
) -> dict[str, Tensor]:
    """What is to be written of a state, but with the bits that were read where the values are those that were read.

    Args:
        written: What :func:`packed_weights` made of the state.
        state: The tensors as they are now.
        stored: What of them was read from a file, as it was stored.
        kinds: Only what was stored in one of these is kept.
    """
    kept = dict(written)
    old = {n: tensor for n, tensor in state.items() if n in stored and stored[n].dtype in kinds}
    for name, read in unpacked_weights(stored, old).items():
        if torch.equal(read.float(), old[name].cpu().float()):
            kept.pop(name + SCALE, None)
            kept |= {key: stored[key] for key in (name, name + SCALE) if key in stored}
    return kept
