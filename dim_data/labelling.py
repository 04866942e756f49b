"""Soft labels: what teachers say of images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dim_data.compute import autocast, compiled
from dim_data.specs import ImageSpec

__all__ = ["opinions"]


@torch.no_grad()
def opinions(teachers: Sequence[nn.Module], images: Tensor, spec: ImageSpec, batch_size: int = 250) -> Tensor:
    """What teachers say of images: class probabilities, float32 (N, num_classes), on the teachers' device.

    The mean over the teachers, and over an image and its mirror where ``spec.mirror`` allows.

    Args:
        teachers: Classifiers that take normalised images (B, C, H, W) and give logits (B, num_classes); left in
            eval mode.
        images: uint8 (N, C, H, W).
        spec: What the images are.
        batch_size: Images in one pass.

    Raises:
        ValueError: There is no teacher, or one does not give ``num_classes`` logits.
    """
    if not teachers:
        raise ValueError("no teacher was given: pass at least one classifier")
    device = next(teachers[0].parameters()).device
    ask = [compiled(teacher.eval()) for teacher in teachers]
    batches = []
    for batch in images.split(batch_size):
        batch = spec.normalize(batch.to(device).float() / 255)
        said = []
        for view in [batch, batch.flip(-1)] if spec.mirror else [batch]:
            view = view.contiguous(memory_format=torch.channels_last)
            for teacher in ask:
                with autocast(device):
                    logits = teacher(view)
                wanted = (len(batch), spec.num_classes)
                if logits.shape != wanted:
                    raise ValueError(f"a teacher must give logits of shape {wanted}, got {tuple(logits.shape)}")
                said.append(logits.float().softmax(1))
        batches.append(torch.stack(said).mean(0))
    return torch.cat(batches)
