"""What a classifier is shown: images of a generator's or of a real set, in balanced batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from dim_data.generator import Generator, bank_index, blended
from dim_data.images import ImageSpec, LabelledImages, torch_defaults
from dim_data.loading import PictureCache, SlotCache, check_refresh, serials_at

__all__ = ["Fetch", "batch_sizes", "batches", "image_source"]

Fetch = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]


@torch_defaults(painting=True)
def image_source(
    train: Generator | LabelledImages, shown: int, soft_labels: float = 0, ipc: int = 1, refresh: float = 1.0
) -> Fetch:
    """(labels, serials, seed) -> uint8 images and what to learn of them; no code is decoded twice.

    A bank with more codes than will be shown is not kept in memory: few of them come again. With ``refresh`` below 1 a
    serial is a place in an epoch of ``ipc`` images of each class, and most of its pictures stay for the next.
    """
    if isinstance(train, Generator):
        if soft_labels and not train.config.soft_labels:
            raise ValueError("the recipe learns soft labels, and this generator stores none: use 'tuned' or 'muon'")
        painter: Generator | PictureCache | SlotCache = train
        if check_refresh(train, refresh) < 1:
            painter = SlotCache(train, ipc, opinions=bool(soft_labels))
        elif train.source.finite and len(train.bank) <= shown:
            painter = PictureCache(train)
        classes = train.spec.num_classes

        def draw(y: Tensor, n: Tensor, seed: int) -> tuple[Tensor, Tensor]:
            if refresh < 1:
                epochs = torch.div(n, ipc, rounding_mode="floor")
                n = serials_at(n % ipc * classes + y, epochs, ipc=ipc, classes=classes, refresh=refresh)
            images = painter.synthesize(y, n, seed)
            return images, blended(painter.soft_labels(y, n, seed, images), y, soft_labels) if soft_labels else y

        return draw
    if refresh != 1:
        raise ValueError(f"refresh={refresh} is of a generator driven by noise: real images stay as they are")
    if soft_labels and train.soft is None:
        raise ValueError(
            "the recipe learns soft labels, and these images have none (LabelledImages.soft): use 'tuned' or 'muon'"
        )
    images, labels, soft, order = train.images, train.labels, train.soft, train.labels.argsort(stable=True)
    counts = torch.bincount(labels, minlength=train.spec.num_classes)
    if not bool((counts > 0).all()):
        raise ValueError("the training images lack a class that the spec names")

    def fetch(y: Tensor, n: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        rows = order[bank_index(y.to(order.device), n.to(order.device), counts, seed)]
        targets = blended(soft[rows], labels[rows], soft_labels) if soft_labels and soft is not None else labels[rows]
        return images[rows], targets

    return fetch


FETCHED = 8192
"""Images fetched at once: a generator runs on full chunks, and an epoch of any size fits."""


def batch_sizes(size: int, batch_size: int) -> list[int]:
    """Images in each batch of an epoch. A single one left over joins the batch before: BatchNorm needs two."""
    full, rest = divmod(size, batch_size)
    if full and rest == 1:
        return [batch_size] * (full - 1) + [batch_size + 1]
    return [batch_size] * full + [rest] * (rest > 0)


def batches(
    fetch: Fetch,
    spec: ImageSpec,
    ipc: int,
    epochs: int,
    batch_size: int,
    seed: int,
    device: torch.device,
    done: int = 0,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Balanced, shuffled batches of ``epochs`` epochs: float images in [0, 1] and their targets, on ``device``.

    The first ``done`` batches are passed over.
    """
    size = ipc * spec.num_classes
    rng = torch.Generator().manual_seed(seed)
    labels, slots = torch.arange(size) % spec.num_classes, torch.arange(size) // spec.num_classes
    block, piece = max(1, FETCHED // 2 // size), max(1, FETCHED // batch_size)  # epochs and batches fetched at once
    for start in range(0, epochs, block):
        orders = [torch.randperm(size, generator=rng) for _ in range(start, min(start + block, epochs))]
        y = torch.cat([labels[order] for order in orders])
        n = torch.cat([slots[order] + (start + i) * ipc for i, order in enumerate(orders)])
        sizes = batch_sizes(size, batch_size) * len(orders)
        end = 0
        for first in range(0, len(sizes), piece):
            parts = sizes[first : first + piece]
            begin, end = end, end + sum(parts)
            passed = min(done, len(parts))
            done -= passed
            if passed == len(parts):
                continue
            images, targets = fetch(y[begin:end], n[begin:end], seed)
            for image, target in list(zip(images.split(parts), targets.split(parts), strict=True))[passed:]:
                yield image.to(device).float() / 255, target.to(device)
