"""What a label is: values are checked, all of them, before any becomes a class."""

import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

import numpy as np

from ..errors import InputError
from .notices import count, enumerate_names, notice


# An embedding has a row for every label up to the largest one.
LARGEST_LABEL = 99_999
_WHOLE = re.compile(r"[+-]?\d+(\.0*)?", re.ASCII)


@dataclass
class Labels:
    """The label of each image, `None` where it has none, and the names of the labels, unless they are numbers."""

    values: list[int | None]
    names: dict[int, str]

    def drop_missing(self, place: str, row_name: Callable[[int], str]) -> list[int]:
        """Drop the images without a label, with a notice of them; the numbers of the others."""
        missing = [row_name(row) for row, value in enumerate(self.values) if value is None]
        if missing:
            of = f"{count(len(missing), 'image')} of {len(self.values):,}"
            notice(f"{place}: left out {of} without a label", missing)
        kept = [row for row, value in enumerate(self.values) if value is not None]
        self.values = [self.values[row] for row in kept]
        return kept


class Found(NamedTuple):
    """What a folder, a table or the Hub holds before any image is read: entries, and their labels if asked for."""

    entries: Sequence
    labels: Labels | None


def make_labels(
    values: list, place: str, row_name: Callable[[int], str], names: list[str] | None = None, are_folders: bool = False
) -> Labels:
    """
    The labels of a column's values: whole numbers in any type or spelling keep their value, text is numbered by the
    alphabet, a `ClassLabel` column has `names`. Everything else is refused. `place` and `row_name` are for messages.
    """
    plain = list(values) if are_folders else [_to_plain(value) for value in values]
    if names is not None:
        # `datasets` writes a missing label as -1.
        plain = [None if value == -1 else value for value in plain]
    first: dict[type, int] = {}
    for row, value in enumerate(plain):
        if value is not None:
            first.setdefault(type(value), row)
    shown = {kind: f"{row_name(row)} has {str(values[row])[:40]!r}" for kind, row in first.items()}
    if odd := [text for kind, text in shown.items() if kind not in (bool, int, str)]:
        raise InputError(f"{place}: {enumerate_names(odd)}; a label must be a whole number or a name")
    if not first:
        raise InputError(f"{place}: none of the {count(len(values), 'image')} has a label")
    if len(first) > 1:
        some = enumerate_names(shown.values())
        raise InputError(f"{place} mixes kinds of labels: {some}; they must all be numbers or all be names")
    index, class_names = _number_classes(set(plain) - {None}, names)
    for row, value in enumerate(plain):
        label = 0 if value is None else index.get(value, -1)
        if label < 0 or (label > LARGEST_LABEL and not class_names):
            right = f"a label must be a name, or a number from 0 to {LARGEST_LABEL:,}"
            right = right if names is None else f"but the column names {count(len(names), 'class')}"
            raise InputError(f"{place}: {row_name(row)} has {value}, {right}")
    return Labels([None if value is None else index[value] for value in plain], class_names)


def _to_plain(value: object) -> object:
    """A value of NumPy, or of a type that behaves like a number, as Python's own; `None` where it is missing."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Decimal):
        value = float(value) if value.is_finite() else None
    if isinstance(value, float):
        return None if math.isnan(value) else int(value) if value.is_integer() else value
    if isinstance(value, str) and (not value.strip() or value in ("nan", "NaN", "<NA>")):
        # The last are how NumPy and pandas write a missing value as text.
        return None
    return value


def _number_classes(values: set, names: list[str] | None) -> tuple[dict, dict[int, str]]:
    """The label that each value of a column stands for, and the names of the labels."""
    if names is not None:
        return {label: label for label in range(len(names))}, dict(enumerate(names))
    kind = type(next(iter(values)))
    if kind is bool:
        return {False: 0, True: 1}, {0: "False", 1: "True"}
    if kind is int:
        return {value: value for value in values}, {}
    if all(_WHOLE.fullmatch(value.strip()) for value in values):
        numbers = {value: int(value.strip().partition(".")[0]) for value in values}
        # Two spellings of one number are two names.
        if len({value.strip() for value in values}) == len(set(numbers.values())):
            return numbers, {}
    classes = sorted(values)
    return {name: label for label, name in enumerate(classes)}, dict(enumerate(classes))


def read_class_folders(names: list[str], split_level: int | None, place: str) -> list[str | None]:
    """The class of each image: the first level of folders that differ; `None` for images beside the class folders."""
    paths = [name.split("/")[:-1] for name in names]
    if split_level is not None:
        paths = [folders[:split_level] + folders[split_level + 1 :] for folders in paths]
    above = os.path.commonprefix(paths)
    classes = [folders[len(above)] if len(folders) > len(above) else None for folders in paths]
    there = set(classes) - {None}
    if len(there) > 1:
        return classes
    only = next(iter(there), None) or (above[-1] if above else None)
    has = f"there is only one class folder, {only}" if only else "these images have no labels"
    folders = "folders" if split_level is None else "folders below the splits"
    raise InputError(
        f"{place}: {has}; labels are looked for in metadata.jsonl, metadata.csv or metadata.parquet, and in the names"
        f" of {folders}, of which there must be two or more"
    )
