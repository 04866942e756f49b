"""A generator's weights in a file and back: every name, and every bit, as it was."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dim_data.format import (
    CONFIG,
    WEIGHTS,
    GeneratorConfig,
    format_of,
    kept_weights,
    packed_weights,
    read_config,
    read_weights,
    round_layers,
    round_table,
    unpacked_weights,
    write_atomically,
    write_json,
)
from dim_data.generator.deriving import fresh
from dim_data.generator.painting import Painter
from dim_data.hub import forget_description

__all__ = ["WeightFormat", "load", "save"]

P = TypeVar("P", bound=Painter)

BANK = ("codes", "soft")
MAP_ABOVE = 64 << 20
"""Bytes from which on a tensor of the bank is not read: its pages come from the file as they are asked for."""
WeightFormat = torch.dtype | Literal["int4"]
KEPT: dict[WeightFormat | None, tuple[torch.dtype, ...]] = {
    None: (torch.float16, torch.bfloat16, torch.float32, torch.int8, torch.uint8),
    torch.float16: (),
    torch.bfloat16: (),
    torch.float32: (),
    torch.int8: (torch.int8, torch.uint8),
    "int4": (torch.uint8,),
}
"""For each ``dtype`` of :func:`save`: in which kinds of numbers tensors stay as they were read, if they have not
changed. Rounding to 8 or 4 bits again would move the last bit of some scales."""


def _named(generator: Painter) -> dict[str, Tensor]:
    """The tensors of a generator as files call them: those of its source by their own names."""
    return {name.removeprefix("source."): tensor for name, tensor in generator.state_dict().items()}


def save(generator: Painter, folder: Path, dtype: WeightFormat | None) -> None:
    """See :meth:`Generator.save_pretrained <dim_data.generator.Generator.save_pretrained>`."""
    if dtype not in KEPT:
        raise ValueError(f"dtype must be torch.float16, bfloat16, int8, float32, 'int4' or None, got {dtype!r}")
    folder.mkdir(parents=True, exist_ok=True)
    state, stored = _named(generator), generator.stored
    rounded = _in_four_bits(generator) if dtype == "int4" else packed_weights(state, dtype or format_of(stored))
    tensors = kept_weights(rounded, state, stored, KEPT[dtype])
    replaced = (folder / WEIGHTS).is_file() and not _is_there(folder, tensors, generator.config)
    write_atomically(folder / WEIGHTS, lambda path: save_file(tensors, path, {"format": "pt"}))
    write_json(folder / CONFIG, generator.config.to_dict())
    if replaced:
        forget_description(folder)


def _is_there(folder: Path, tensors: Mapping[str, Tensor], config: GeneratorConfig) -> bool:
    """Whether the generator in ``folder`` is that of these tensors."""
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            return (
                read_config(folder / CONFIG) == config
                and set(file.keys()) == tensors.keys()
                and all(_same(file.get_tensor(name), tensor) for name, tensor in tensors.items())
            )
    except (OSError, ValueError, SafetensorError):  # not a generator
        return False


def _same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)


@torch.no_grad()
def _in_four_bits(generator: Painter) -> dict[str, Tensor]:
    """The tensors to write, layers rounded to do well on the first 256 pictures."""
    other, classes = copy.deepcopy(generator).cpu().float().eval(), generator.spec.num_classes
    labels, serials = torch.arange(256) % classes, torch.arange(256) // classes
    latents = other.latents(labels, serials)
    batches: list[tuple[Tensor, ...]] = list(zip(latents.split(8), labels.split(8), strict=True))
    networks: dict[str, tuple[nn.Module, list[tuple[Tensor, ...]]]] = {"decoder": (other.decoder, batches)}
    networks |= other.source.networks(latents, labels)
    scales = {
        f"{name}.{layer}": s for name, (net, seen) in networks.items() for layer, s in round_layers(net, seen).items()
    }
    if hasattr(other, "teacher"):
        seen = [(other.spec.normalize(other(*batch).clamp(0, 1)),) for batch in batches]
        scales |= {f"teacher.{name}": s for name, s in round_layers(other.teacher, seen).items()}
    scales |= {name: round_table(table) for name, table in other.source.tables().items()}
    return packed_weights(_named(other), torch.int8, scales)


def load(kind: type[P], folder: Path) -> P:
    """The generator whose files are in ``folder``, in eval mode, without gradients, on the CPU.

    Raises:
        ValueError: The config or the weights are not those of a generator this library can build.
    """
    config = read_config(folder / CONFIG)
    with torch.device("meta"):
        expected = _named(Painter(config))
    stored = read_weights(folder / WEIGHTS, expected)
    read = unpacked_weights(stored, expected)
    if not all(bool(tensor.isfinite().all()) for tensor in read.values() if tensor.is_floating_point()):
        raise ValueError(f"{folder / WEIGHTS}: scales make weights that are not finite")
    generator = fresh(kind, config)
    large = [name for name in BANK if name in read and read[name].nbytes > MAP_ABOVE]
    for name in large:
        setattr(generator.source, name, read[name])  # as it lies in the file, which is mapped
    state = {name: read[name.removeprefix("source.")] for name in generator.state_dict()}
    generator.load_state_dict({n: t for n, t in state.items() if n.removeprefix("source.") not in large}, strict=False)
    try:
        generator.source.check()
    except ValueError as error:
        raise ValueError(f"{folder / WEIGHTS}: {error}") from error
    generator.stored = {
        name: tensor for name, tensor in stored.items() if expected.get(name, tensor).is_floating_point()
    }
    return generator.requires_grad_(False).eval()
