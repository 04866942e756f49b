"""Datasets of other people: map-style ones, streams, and tables with columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from torch.utils.data import ChainDataset, ConcatDataset, IterableDataset, Subset

from dim_data.images.pictures import Picture, Pictures
from dim_data.images.pixels import Pixels
from dim_data.images.specs import KNOWN_SPECS
from dim_data.images.tables import find_columns, is_table, label_names, row_columns, table_name

__all__ = ["dataset_pictures", "is_dataset"]

Columns = tuple[Any, Any]
TABLES = ("Dataset", "IterableDataset")


def is_dataset(data: Any) -> bool:
    """Whether ``data`` has labelled items: by index, or one after the other."""
    by_index = hasattr(data, "__getitem__") and hasattr(data, "__len__")
    return by_index or isinstance(data, IterableDataset) or is_table(data, *TABLES)


def dataset_pictures(data: Any, columns: Columns | None, pixels: Pixels) -> Pictures:
    """The items of a dataset; none is asked for yet.

    Args:
        data: Items are pairs (image, label), or mappings with a key for each.
        columns: These keys (or positions); found by type where they are left out.
        pixels: How images are converted.

    Raises:
        ValueError: It cannot be told which columns are meant, or parts name their classes differently.
    """
    origin = _origin(data)
    table = is_table(origin, *TABLES)
    if columns is None and table and origin.features:
        columns = find_columns(origin.features)
    name = table_name(origin) if table else type(origin).__name__.lower()
    streams = isinstance(data, IterableDataset) or is_table(data, "IterableDataset")
    count = None if streams else len(data)

    def stream(start: int) -> Iterator[Picture]:
        keys = columns
        for index, item in enumerate(_items(data, start, count, named=table), start):
            if keys is None and isinstance(item, Mapping):
                keys = row_columns(item)
            image, label = _pair(item, keys, index)
            picture = pixels.item(image, f"item {index}")  # at once: photos may be large
            yield partial(np.asarray, picture), _label(label, index)

    def identity() -> dict[str, Any]:
        return {"path": f"table {data._fingerprint}", "columns": list(map(str, columns or ())), **pixels.identity}

    told = table and count is not None and data is origin and isinstance(getattr(data, "_fingerprint", None), str)
    known = KNOWN_SPECS.get({"fashionmnist": "fashion_mnist"}.get(name, name))
    return Pictures(name, stream, count, identity=identity if told else None, names=_names(data, columns), known=known)


def _items(data: Any, start: int, count: int | None, named: bool) -> Iterator[Any]:
    """All items from ``start`` on; an error in reading a file, or in a table, is given the item's number."""
    items = iter(data) if count is None else (data[index] for index in range(start, count))
    index = start
    while True:
        try:
            item = next(items)
        except StopIteration:
            return
        except Exception as error:
            if not (named or isinstance(error, OSError)):
                raise
            raise ValueError(f"item {index} cannot be read: {str(error) or type(error).__name__}") from error
        yield item
        index += 1


def _pair(item: Any, columns: Columns | None, index: int) -> tuple[Any, Any]:
    if columns is not None:
        try:
            return item[columns[0]], item[columns[1]]
        except (LookupError, TypeError) as error:
            has = f"has the keys {list(item)}" if isinstance(item, Mapping) else f"is {type(item).__name__}"
            raise ValueError(f"columns={columns!r} are not in item {index}, which {has}") from error
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise ValueError(
            f"a dataset's items must be (image, label) pairs, item {index} is {type(item).__name__}: columns= names "
            f"the image and the label in others"
        )
    return item[0], item[1]


def _label(label: Any, index: int) -> int | str:
    if isinstance(label, str):
        return str(label)
    value = np.asarray(label)  # MedMNIST's datasets give an array of one int
    if value.size != 1 or value.dtype.kind not in "iu":
        raise ValueError(f"the label of item {index} is not an int: {label!r}")
    return int(value.reshape(()))


def _origin(data: Any) -> Any:
    """The dataset that subsets, and parts joined again, come from."""
    while isinstance(data, Subset | ConcatDataset | ChainDataset):
        data = data.dataset if isinstance(data, Subset) else next(iter(data.datasets))
    return data


def _names(data: Any, columns: Columns | None) -> tuple[str, ...] | None:
    """The class names of a dataset, or of those that it is a part of or joins."""
    if is_table(data, *TABLES):
        return label_names(data.features, columns[1]) if columns else None
    classes = getattr(data, "classes", None)
    if isinstance(classes, list | tuple | np.ndarray):
        return tuple(map(str, classes))
    if isinstance(data, Subset):
        return _names(data.dataset, columns)
    if isinstance(data, ConcatDataset | ChainDataset):
        named = {names for part in data.datasets if (names := _names(part, columns)) is not None}
        if len(named) > 1:
            raise ValueError(
                f"datasets joined to one name their classes differently, so that a label means two things: "
                f"{' and '.join(str(list(names[:5])) for names in sorted(named)[:2])}"
            )
        return next(iter(named), None)
    return None
