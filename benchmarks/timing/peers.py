"""What else a user would feed a training loop with: each the same pictures, shuffled, as (float images, labels).

Hugging Face ``datasets`` and ``spdl`` are measured where they are installed, and passed over where not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset
from torchvision import datasets, transforms

Feed = Any
"""Yields (images, labels) batches of an epoch, each time it is iterated over."""


class RandomCIFAR10(datasets.CIFAR10):
    """torchvision's CIFAR10 with random pixels in place of the downloaded ones: the same work for each item."""

    def __init__(self, count: int, transform: Callable[[Any], Any]) -> None:
        rng = np.random.default_rng(0)
        self.data = rng.integers(0, 256, (count, 32, 32, 3), np.uint8)
        self.targets = [index % 10 for index in range(count)]
        self.transform, self.target_transform = transform, None


class Mapped:
    """What another loader yields, brought to (float images, labels).

    Args:
        feed: The other loader.
        convert: One of its batches to one of ours.
    """

    def __init__(self, feed: Feed, convert: Callable[[Any], tuple[torch.Tensor, torch.Tensor]]) -> None:
        self.feed, self.convert = feed, convert

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return map(self.convert, self.feed)


class Memory:
    """A tensor in memory, shuffled and batched by hand: the least that a loader can cost."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, batch: int) -> None:
        self.images, self.labels, self.batch = images, labels, batch

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for index in torch.randperm(len(self.labels), device=self.labels.device).split(self.batch):
            yield self.images[index].float() / 255, self.labels[index]


def peers(count: int, batch: int, workers: int) -> dict[str, Feed]:
    """Name -> feed of ``count`` pictures, for what is installed.

    Args:
        count: Pictures in an epoch.
        batch: Pictures in a batch.
        workers: Worker processes; of ``spdl``, which has none, threads.
    """
    plural = f"{workers} worker{'s' * (workers != 1)}"
    options = {"batch_size": batch, "num_workers": workers, "persistent_workers": workers > 0}
    real = RandomCIFAR10(count, transforms.ToTensor())
    pixels, labels = torch.from_numpy(real.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(real.targets)
    found: dict[str, Feed] = {
        f"CIFAR10 of torchvision, {plural}": DataLoader(real, shuffle=True, **options),
        f"its tensors in a `TensorDataset`, {plural}": Mapped(
            DataLoader(TensorDataset(pixels, labels), shuffle=True, **options), lambda b: (b[0].float() / 255, b[1])
        ),
    }
    pictures = {"img": [Image.fromarray(array) for array in real.data], "label": real.targets}
    if find_spec("datasets"):
        found[f"Hugging Face `datasets`, torch format, {plural}"] = _hugging_face(pictures, options)
    if find_spec("spdl") and workers:
        found[f"`spdl`, {workers} threads"] = _Spdl(real, batch, workers)
    return found


def _hugging_face(pictures: dict[str, Any], options: dict[str, Any]) -> Feed:
    import datasets as hugging_face

    columns = hugging_face.Features({"img": hugging_face.Image(), "label": hugging_face.Value("int64")})
    table = hugging_face.Dataset.from_dict(pictures, features=columns).with_format("torch")
    return Mapped(DataLoader(table, shuffle=True, **options), lambda b: (b["img"].float() / 255, b["label"]))


class _Spdl:
    """A pipeline of threads that read and collate the items of CIFAR10."""

    def __init__(self, real: RandomCIFAR10, batch: int, threads: int) -> None:
        self.real, self.batch, self.threads = real, batch, threads

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        from spdl.pipeline import PipelineBuilder

        def read(indices: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
            images, labels = zip(*(self.real[index] for index in indices), strict=True)
            return torch.stack(images), torch.tensor(labels)

        with ThreadPoolExecutor(self.threads) as pool:
            order = [part.tolist() for part in torch.randperm(len(self.real)).split(self.batch)]
            builder = PipelineBuilder().add_source(order).pipe(read, concurrency=self.threads, executor=pool)
            pipeline = builder.add_sink(2).build(num_threads=self.threads)
            with pipeline.auto_stop():
                yield from pipeline
