"""Soft labels: what teachers say of images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dim_data.images import ImageRows, ImageSpec, torch_defaults
from dim_data.networks import autocast, compiled, in_float32, logits_of

__all__ = ["blended", "opinion", "opinions"]


def opinion(
    teachers: Sequence[Callable[[Tensor], Tensor]], images: Tensor, spec: ImageSpec, temperature: float = 1.0
) -> Tensor:
    """Class probabilities of one batch, float32 (B, num_classes), in one pass of each teacher and view.

    The mean over the teachers, and over an image and its mirror where ``spec.mirror`` allows.

    Args:
        teachers: Take normalised images (B, C, H, W), in channels last, and give logits (B, num_classes).
        images: uint8 (B, C, H, W), on the teachers' device.
        spec: What the images are.
        temperature: Divides the logits: above 1 the teachers are less sure.

    Raises:
        TypeError: A teacher gives something else than logits.
        ValueError: They are not ``num_classes``.
    """
    batch, said = spec.normalize(images), []
    for view in [batch, batch.flip(-1)] if spec.mirror else [batch]:
        view = view.contiguous(memory_format=torch.channels_last)
        for teacher in teachers:
            with autocast(images.device):
                logits = logits_of(teacher(view), len(images), spec.num_classes, "teacher")
            said.append((logits.float() / temperature).softmax(1))
    return torch.stack(said).mean(0)


def blended(soft: Tensor, labels: Tensor, share: float) -> Tensor:
    """``share`` of the probabilities ``soft`` (B, num_classes), the rest of one being that of the class.

    Args:
        soft: float, each row summing to 1.
        labels: int64 (B,), the classes, on any device.
        share: In [0, 1].
    """
    if share == 1:
        return soft
    return torch.lerp(F.one_hot(labels.to(soft.device), soft.shape[1]).to(soft), soft, share)


@torch_defaults()
@torch.no_grad()
def opinions(
    teachers: Sequence[nn.Module],
    images: Tensor | ImageRows | Iterable[Tensor],
    spec: ImageSpec,
    temperature: float = 1.0,
    batch_size: int = 250,
) -> Tensor:
    """:func:`opinion` of any number of images: float32 (N, num_classes), on the teachers' device.

    Args:
        teachers: Classifiers that take normalised images (B, C, H, W) and give logits (B, num_classes); left in
            eval mode.
        images: uint8 (N, C, H, W), or batches of them, taken one by one.
        spec: What the images are.
        temperature: Divides the logits: above 1 the teachers are less sure.
        batch_size: Images in one pass, where they do not come in batches.

    Raises:
        ValueError: There is no teacher, one does not give ``num_classes`` logits, or the temperature is not positive.
    """
    if not teachers:
        raise ValueError("no teacher was given: pass at least one classifier")
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be positive, got {temperature}")
    device = next(teachers[0].parameters()).device
    ask = [compiled(in_float32(teacher.eval())) for teacher in teachers]
    batches = images.split(batch_size) if isinstance(images, Tensor | ImageRows) else images
    return torch.cat([opinion(ask, batch.to(device), spec, temperature) for batch in batches])
