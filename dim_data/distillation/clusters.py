"""Parts of a class: k-means of what a classifier sees in its images."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dim_data.images import ImageSpec, torch_defaults
from dim_data.networks import autocast

__all__ = ["cluster_classes", "describe_images"]

ROUNDS = 30
HALVED = 512 << 20
SCALED_BY = 100_000
"""Images whose features tell how much each feature varies."""


@torch_defaults(painting=True)
def describe_images(
    classifier: nn.Module, batches: Iterable[Tensor], count: int, spec: ImageSpec, device: torch.device
) -> Tensor:
    """The classifier's last feature map of each image, in four quarters: (N, D), on the CPU.

    They are float32, or float16 where they would take more than 512 MiB.

    Args:
        classifier: With a method ``features`` as in :mod:`dim_data.networks.classifiers`; left in eval mode.
        batches: Images uint8 (B, C, H, W), on any device.
        count: N, how many there are in all of them.
        spec: What they are.
        device: The classifier's.
    """
    classifier.eval()
    found, done = torch.empty(0), 0
    for images in batches:
        batch = spec.normalize(images.to(device).float() / 255).contiguous(memory_format=torch.channels_last)
        with autocast(device):
            features = classifier.features(batch)[-2]  # type: ignore[operator]
        described = F.adaptive_avg_pool2d(features.float(), 2).flatten(1).cpu()
        if not done:
            width = described.shape[1]
            found = torch.empty(count, width, dtype=torch.float16 if 4 * count * width > HALVED else torch.float32)
        found[done : done + len(described)] = described
        done += len(described)
    return found


def cluster_classes(features: Tensor, labels: Tensor, classes: int, count: int, seed: int) -> Tensor:
    """Clusters within each class, by k-means from random members: int64 (N,), each ``label * count + cluster``.

    Args:
        features: float32 or float16 (N, D), on the CPU.
        labels: int64 (N,).
        classes: Number of classes.
        count: Clusters in a class; some stay empty where there are fewer different members.
        seed: Of the first centres.
    """
    rng, found = torch.Generator().manual_seed(seed), labels * count
    some = features[:: max(1, len(features) // SCALED_BY)].float()
    centre, scale = some.mean(0), some.std(0) + 1e-3
    for label in range(classes if count > 1 else 0):
        places = (labels == label).nonzero()[:, 0]
        members = (features[places].float() - centre) / scale
        centres = members[torch.randperm(len(members), generator=rng)[:count]]
        nearest = torch.zeros(len(members), dtype=torch.int64)
        for _ in range(ROUNDS):
            before, nearest = nearest, torch.cdist(members, centres).argmin(1)
            if torch.equal(before, nearest):
                break
            sizes = torch.bincount(nearest, minlength=len(centres))
            sums = torch.zeros_like(centres).index_add_(0, nearest, members)
            centres = torch.where(sizes[:, None] > 0, sums / sizes.clamp(min=1)[:, None], centres)
        found[places] += nearest
    return found
