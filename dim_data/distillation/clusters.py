"""What a classifier sees in images: the parts of a class, and a few numbers for each image."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dim_data.images import ImageSpec, torch_defaults
from dim_data.networks import autocast

__all__ = ["Sight", "cluster_classes", "describe_images", "summaries"]

ROUNDS = 30
SCALED_BY = 100_000
"""Images whose features tell how much each feature varies."""
LOGITS = 3
"""One in so many of the numbers that sum up an image are of the classifier's logits, at most."""


@dataclass(frozen=True)
class Sight:
    """What a classifier sees.

    Attributes:
        maps: The last feature map of each image, in four quarters: float32 (N, D).
        logits: Float32 (N, classes).
    """

    maps: Tensor
    logits: Tensor


@torch_defaults(painting=True)
def describe_images(classifier: nn.Module, batches: Iterable[Tensor], spec: ImageSpec, device: torch.device) -> Sight:
    """What ``classifier`` sees in each image, on the CPU.

    Args:
        classifier: With a method ``features`` as in :mod:`dim_data.networks.classifiers`; left in eval mode.
        batches: Images uint8 (B, C, H, W), on any device.
        spec: What they are.
        device: The classifier's.
    """
    classifier.eval()
    maps, logits = [], []
    for images in batches:
        batch = spec.normalize(images.to(device)).contiguous(memory_format=torch.channels_last)
        with autocast(device):
            *_, last, said = classifier.features(batch)  # type: ignore[operator]
        maps.append(F.adaptive_avg_pool2d(last.float(), 2).flatten(1).cpu())
        logits.append(said.float().cpu())
    return Sight(torch.cat(maps), torch.cat(logits))


@torch_defaults()
@torch.no_grad()
def summaries(sight: Sight, count: int) -> Tensor:
    """Each image in ``count`` numbers, or fewer: principal components of unit variance, of the logits and of the maps.

    The logits say which class an image looks like, the maps what else there is to it.

    Returns:
        float32 (N, count or fewer).
    """
    told = _principal(
        sight.logits - sight.logits.mean(1, keepdim=True), min(count // LOGITS, sight.logits.shape[1] - 1)
    )
    maps = (sight.maps - sight.maps.mean(0)) / (sight.maps.std(0, correction=0) + 1e-3)
    return torch.cat([told, _principal(maps, count - told.shape[1])], 1)


def _principal(values: Tensor, count: int) -> Tensor:
    """The first principal components of ``values`` (N, D), each of unit variance: (N, count or fewer)."""
    centred = (values - values.mean(0)).double()
    powers, directions = torch.linalg.eigh(centred.T @ centred / len(values))
    # Components without variance say nothing, and would be divided by it.
    real = powers > powers[-1] * 1e-6
    powers, directions = powers[real].flip(0)[:count], directions[:, real].flip(1)[:, :count]
    # Eigenvectors come with any sign.
    directions = directions * directions.gather(0, directions.abs().argmax(0, keepdim=True)).sign()
    return (centred @ directions / powers.sqrt()).float()


def cluster_classes(features: Tensor, labels: Tensor, classes: int, count: int, seed: int) -> Tensor:
    """Clusters within each class, by k-means from random members: int64 (N,), each ``label * count + cluster``.

    Args:
        features: Float (N, D), on the CPU.
        labels: int64 (N,).
        classes: Number of classes.
        count: Clusters in a class; some stay empty where there are fewer different members.
        seed: Of the first centres.
    """
    rng, found = torch.Generator().manual_seed(seed), labels * count
    some = features[:: max(1, len(features) // SCALED_BY)]
    centre, scale = some.mean(0), some.std(0) + 1e-3
    for label in range(classes if count > 1 else 0):
        places = (labels == label).nonzero()[:, 0]
        members = (features[places] - centre) / scale
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
