"""Generators made of another: other latents for the same decoder, or another decoder for the same latents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from dim_data.format import GeneratorConfig
from dim_data.generator.fewer import class_shares, drawn_rows
from dim_data.generator.painting import Painter
from dim_data.generator.sources import fit_gaussian
from dim_data.images import ImageSpec
from dim_data.networks import ConvNet, TokenPrior, parse_options

__all__ = [
    "check_teacher",
    "fresh",
    "kept_rows",
    "with_codes",
    "with_decoder",
    "with_gaussian",
    "with_prior",
    "with_rows",
]

P = TypeVar("P", bound=Painter)

PACKED = 8192
"""Latents packed at once: on the way they take many times the memory of their codes."""


def fresh(kind: type[P], config: GeneratorConfig) -> P:
    """A generator whose fresh weights will be overwritten: torch's random state stays where its user left it."""
    with torch.random.fork_rng(devices=[]):
        return kind(config)


def _with_decoder_of(generator: P, config: GeneratorConfig) -> P:
    other = fresh(type(generator), config)
    other.decoder.load_state_dict(generator.decoder.state_dict())
    other.stored = {name: tensor for name, tensor in generator.stored.items() if name.startswith("decoder.")}
    return other


@torch.no_grad()
def with_decoder(generator: P, options: Mapping[str, int]) -> P:
    """See :meth:`Generator.with_decoder <dim_data.generator.Generator.with_decoder>`."""
    config = replace(generator.config, options={**generator.config.options, **options})
    other = fresh(type(generator), config)
    if _latents(other) != _latents(generator):
        raise ValueError(
            f"options {dict(options)} change the latents, of shape {generator.decoder.latent_shape}: "
            f"code_channels, code_levels, base and latent_dim must stay as they are"
        )
    other.source.load_state_dict(generator.source.state_dict())
    if generator.config.soft_labels and not generator.source.finite:
        _teach(other, generator.teacher)
    other.stored = {name: tensor for name, tensor in generator.stored.items() if not name.startswith("decoder.")}
    return other.to(next(generator.decoder.parameters()).device)


def _latents(generator: Painter) -> tuple[tuple[int, ...], int | None]:
    """Shape and, of codes, levels."""
    options = parse_options(generator.config.architecture, generator.config.options)
    return generator.decoder.latent_shape, getattr(options, "code_levels", None)


@torch.no_grad()
def with_codes(generator: P, latents: Tensor | Iterable[Tensor], labels: Tensor, soft: Tensor | None) -> P:
    """See :meth:`Generator.store <dim_data.generator.Generator.store>`."""
    counts = torch.bincount(labels, minlength=generator.spec.num_classes)
    if len(counts) != generator.spec.num_classes or not bool((counts > 0).all()):
        raise ValueError(f"codes need at least one image of each of the {generator.spec.num_classes} classes")
    other = _with_decoder_of(generator, replace(generator.config, codes=len(labels), soft_labels=soft is not None))
    order, bank = labels.argsort(stable=True), other.bank
    parts = latents.split(PACKED) if isinstance(latents, Tensor) else latents
    bank.codes.copy_(torch.cat([bank.pack(part) for part in parts])[order])
    if soft is not None:
        for place, part in zip(bank.soft.split(PACKED), order.split(PACKED), strict=True):
            place.copy_(_in_bytes(soft[part]))
    bank.counts.copy_(counts)
    return other


def _in_bytes(soft: Tensor) -> Tensor:
    """Soft labels as they are stored: uint8, those of the likeliest class being 255. What is stored already stays."""
    if soft.dtype == torch.uint8:
        return soft
    # In parts of 1, all of many classes that are nearly as likely would be rounded to nothing.
    return (soft / soft.amax(1, keepdim=True).clamp(min=1e-30) * 255).round().to(torch.uint8)


@torch.no_grad()
def with_gaussian(generator: P, rank: int, teacher: nn.Module | None) -> P:
    """See :meth:`Generator.forget_codes <dim_data.generator.Generator.forget_codes>`."""
    if not generator.source.finite:
        raise ValueError("there are no codes to forget: this generator is driven by noise already")
    if rank < 1:
        raise ValueError(f"rank must be at least 1, got {rank}")
    bank = generator.bank
    rank, soft = min(rank, bank.size), teacher is not None
    config = replace(generator.config, source="noise", codes=0, rank=rank, soft_labels=soft)
    other = _with_decoder_of(generator, config)
    _teach(other, teacher)
    gaussian = other.source.state_dict(keep_vars=True)
    for label, codes in enumerate(bank.codes.cpu().split(bank.counts.tolist())):
        fitted = fit_gaussian(bank.unpack(codes).flatten(1), rank)
        gaussian["means"][label], gaussian["factors"][label], gaussian["scales"][label] = fitted
    return other.requires_grad_(False).eval().to(bank.codes.device)


@torch.no_grad()
def with_prior(generator: P, prior: TokenPrior, teacher: nn.Module | None) -> P:
    """See :meth:`Generator.with_prior <dim_data.generator.Generator.with_prior>`."""
    config = replace(
        generator.config,
        source="noise",
        codes=0,
        rank=0,
        sigma=1.0,
        prior=prior.config,
        soft_labels=teacher is not None,
    )
    try:
        other = _with_decoder_of(generator, config)
        other.source.load_state_dict({f"prior.{name}": tensor for name, tensor in prior.state_dict().items()})
    except RuntimeError as error:
        raise ValueError(f"the prior must be one of this decoder's codes and classes: {error}") from error
    _teach(other, teacher)
    return other.requires_grad_(False).eval().to(next(generator.decoder.parameters()).device)


def check_teacher(teacher: nn.Module, spec: ImageSpec) -> None:
    """Raise ``ValueError`` unless a generator of ``spec`` can keep this teacher."""
    with torch.random.fork_rng(devices=[]):
        _load_teacher(ConvNet(spec), teacher)


def _teach(generator: Painter, teacher: nn.Module | None) -> None:
    """Let the generator keep this teacher."""
    if teacher is not None:
        _load_teacher(generator.teacher, teacher)


def _load_teacher(place: nn.Module, teacher: nn.Module) -> None:
    try:
        place.load_state_dict(teacher.state_dict())
    except RuntimeError as error:
        raise ValueError(f"the teacher must be a ConvNet(spec) of the generator's spec: {error}") from error


@torch.no_grad()
def with_rows(generator: P, rows: Tensor, soft_labels: bool) -> P:
    """See :meth:`Generator.keep_rows <dim_data.generator.Generator.keep_rows>`."""
    bank = generator.bank
    if len(rows) and not (int(rows.min()) >= 0 and int(rows.max()) < len(bank)):
        raise IndexError(f"rows must lie in [0, {len(bank)}), got {int(rows.min())} to {int(rows.max())}")
    soft = bank.soft[rows] if soft_labels and generator.config.soft_labels else None
    latents = (bank.unpack(bank.codes[part]) for part in rows.split(PACKED))
    kept = with_codes(generator, latents, bank.labels_of(rows), soft)
    return kept.requires_grad_(False).eval().to(bank.codes.device)


def kept_rows(generator: Painter, count: int, seed: int) -> Tensor:
    """See :meth:`Generator.kept_rows <dim_data.generator.Generator.kept_rows>`."""
    bank = generator.bank
    if not generator.spec.num_classes <= count <= len(bank):
        raise ValueError(f"count must be in [{generator.spec.num_classes}, {len(bank)}], got {count}")
    return drawn_rows(generator, class_shares(bank.counts.cpu(), count).to(bank.counts.device), seed)
