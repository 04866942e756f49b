"""A parting of a set, after which its parts share no picture."""

from __future__ import annotations

import torch
from torch import Tensor

from dim_data.generator import Generator, drawn_rows, hash_keys
from dim_data.images import torch_defaults

__all__ = ["part_generator", "part_seed"]


@torch_defaults(painting=True)
def part_generator(generator: Generator, ipc: int, held: int, seed: int) -> tuple[Generator, Generator, int]:
    """Two generators that paint no picture in common under different seeds, and how many the second has of a class.

    Noise never comes again, so that two seeds are enough. Of stored codes, those that ``seed`` shows first go to the
    second one: ``held`` of each class, but of few codes no greater share than of ``ipc``.

    Raises:
        ValueError: A class has a single code.
    """
    counts = _counts(generator)
    if counts is None:
        return generator, generator, held
    counts = counts.cpu()
    if int(counts.min()) < 2:
        name = generator.spec.classes[int(counts.argmin())]
        raise ValueError(f"class {name!r} has a single code, which cannot be parted: use another generator")
    shares = (counts * held // ipc).clamp(1, held).minimum(counts - 1)
    other = drawn_rows(generator, shares, seed)
    rest = torch.ones(len(generator.bank), dtype=torch.bool, device=other.device)
    rest[other] = False
    return generator.keep_rows(rest.nonzero()[:, 0]), generator.keep_rows(other.sort()[0]), int(shares.min())


@torch_defaults(painting=True)
def part_seed(seed: int, splits: int) -> int:
    """The seed of what is held out of a set of ``seed`` that was split so many times before: another for each."""
    return int(hash_keys(seed, torch.tensor([splits])))


def _counts(generator: Generator) -> Tensor | None:
    """Different pictures of each class, int64 (num_classes,), or ``None`` if there is no end of them."""
    return generator.bank.counts if generator.source.finite else None
