"""Tables of the Hugging Face library ``datasets``: which columns are images and labels, and the classes' names.

They are told by where their types come from, so that the library is not imported for anybody else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from dim_data.images.splits import which_split

__all__ = ["find_columns", "is_table", "label_names", "pick_split", "row_columns", "table_name"]

IMAGE_FEATURES = (("Image",), ("Array2D", "Array3D"))
LABEL_COLUMNS = ("label", "labels", "class", "target")


def is_table(data: Any, *kinds: str) -> bool:
    """Whether ``data`` is of one of the library's types of that name."""
    return any(kind.__module__.split(".")[0] == "datasets" and kind.__name__ in kinds for kind in type(data).__mro__)


def pick_split(data: Any, split: str) -> Any:
    """The part that is a split, where ``data`` is a ``DatasetDict`` or another mapping of splits; other data as it is.

    Raises:
        ValueError: It has no such split.
    """
    if not isinstance(data, Mapping):
        return data
    return data[which_split(list(map(str, data)), split, type(data).__name__)]


def table_name(data: Any) -> str:
    """What the table calls itself: ``"cifar10"``."""
    info = getattr(data, "info", None)
    return str(getattr(info, "dataset_name", None) or "table")


def find_columns(features: Mapping[str, Any]) -> tuple[str, str]:
    """The names of the image column and of the label column, by their types.

    Raises:
        ValueError: There is none, or more than one.
    """
    types = {name: type(feature).__name__ for name, feature in features.items()}
    image: list[str] = []
    for kinds in IMAGE_FEATURES:
        image = image or [name for name, kind in types.items() if kind in kinds]
    label = [name for name, kind in types.items() if kind == "ClassLabel"]
    label = label or [name for name in types if name.lower() in LABEL_COLUMNS]
    if len(image) == len(label) == 1:
        return image[0], label[0]
    said = ", ".join(f"{name!r} ({kind})" for name, kind in types.items())
    raise ValueError(
        f"{len(image) or 'no'} columns of images and {len(label) or 'no'} of labels among {said}: name one of each, "
        f"such as columns=('image', 'label')"
    )


def label_names(features: Mapping[str, Any] | None, column: Any) -> tuple[str, ...] | None:
    """The class names of a ``ClassLabel`` column; ``None`` of others."""
    names: Sequence[str] | None = getattr((features or {}).get(column), "names", None)
    return tuple(map(str, names)) if names else None


def row_columns(row: Mapping[Any, Any]) -> tuple[Any, Any] | None:
    """The image's and the label's key in a row of values, where nothing else tells; ``None`` if they do not."""
    image = [
        key
        for key, value in row.items()
        if isinstance(value, Image.Image) or (isinstance(value, Mapping) and "bytes" in value)
    ]
    label = [key for key in row if isinstance(key, str) and key.lower() in LABEL_COLUMNS]
    return (image[0], label[0]) if len(image) == len(label) == 1 else None
