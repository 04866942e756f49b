"""A grid of samples by class, for people."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from PIL import Image

from dim_data.format import write_atomically
from dim_data.generator.painting import Painter
from dim_data.images import torch_defaults

__all__ = ["sample_grid", "sample_png", "save_grid"]


@torch_defaults(painting=True)
def sample_grid(
    generator: Painter, *, columns: int = 10, max_classes: int = 10, scale: int | None = 1, seed: int = 0
) -> Image.Image:
    """One row of ``columns`` samples for each of the first ``max_classes`` classes, two white pixels apart.

    Args:
        generator: What to show.
        columns: Samples per class.
        max_classes: Rows at most.
        scale: Pixels a side for each pixel; ``None``: 2 up to 32 pixels, 1 above.
        seed: Chooses the samples.
    """
    scale = (1 if generator.spec.doublings else 2) if scale is None else scale
    rows, gap, size = min(max_classes, generator.spec.num_classes), 2, generator.spec.size
    labels = torch.arange(rows).repeat_interleave(columns)
    images = generator.synthesize(labels, torch.arange(columns).repeat(rows), seed).cpu()
    height, width = rows * (size + gap) - gap, columns * (size + gap) - gap
    sheet = torch.full((images.shape[1], height, width), 255, dtype=torch.uint8)
    for index, image in enumerate(images):
        top, left = (index // columns) * (size + gap), (index % columns) * (size + gap)
        sheet[:, top : top + size, left : left + size] = image
    array = sheet.permute(1, 2, 0).squeeze(2).numpy()
    picture = Image.fromarray(array)
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)


def sample_png(generator: Painter) -> bytes:
    """:func:`sample_grid`, at twice its size where that is small, as PNG: what a model card shows."""
    file = io.BytesIO()
    sample_grid(generator, scale=None).save(file, "png")
    return file.getvalue()


def save_grid(
    generator: Painter, path: Path, *, columns: int = 10, max_classes: int = 10, scale: int | None = None, seed: int = 0
) -> None:
    """Write :func:`sample_grid` to ``path`` as PNG; of a link, to what it leads to."""
    picture = sample_grid(generator, columns=columns, max_classes=max_classes, scale=scale, seed=seed)
    write_atomically(path.expanduser().resolve(), lambda file: picture.save(file, "png"))
