"""What a label is: values are checked, all of them, before any becomes a class."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from ..errors import InputError
from .notices import counted, named


# An embedding has a row for every label up to the largest one.
LARGEST_LABEL = 99_999
LOOKED = "in metadata.jsonl, metadata.csv or metadata.parquet"
_WHOLE = re.compile(r"\s*[+-]?\d+(\.0*)?\s*", re.ASCII)


@dataclass
class Labels:
    """
    Attributes:
        values (`list[int | None]`): The label of each image; `None` where it has none.
        names (`dict[int, str]`): The names of the classes by label. Whole numbers have none.
    """

    values: list
    names: dict[int, str]

    def missing(self) -> list[int]:
        """The numbers of the images without a label."""
        return [number for number, value in enumerate(self.values) if value is None]


def make_labels(
    values: list, place: str, row_name: Callable[[int], str], names: list[str] | None = None, are_folders: bool = False
) -> Labels:
    """
    The labels that values of a column stand for. Whole numbers, in whatever type or spelling, keep their value; text
    is numbered in the order of the alphabet; a column that has `names` of its own keeps its numbers.

    Args:
        values (`list`): One an image, as Python or NumPy objects.
        place (`str`): What a message calls the column.
        row_name (`Callable[[int], str]`): What a message calls the row of a number.
        names (`list[str]`, *optional*): The names of a `ClassLabel` column.
        are_folders (`bool`, defaults to `False`): Whether the values are names of folders, of which none is missing.

    Raises:
        [`InputError`]: If a value is no label, or no image has one. Nothing is guessed.
    """
    plain = list(values) if are_folders else [plain_value(value) for value in values]
    kinds = {}
    for number, value in enumerate(plain):
        kinds.setdefault(_kind_of(value), []).append(number)
    none = kinds.pop("missing", [])
    if odd := kinds.pop("odd", []):
        shown = named([f"{row_name(k)} has {str(values[k])[:40]!r}" for k in odd], 2)
        raise InputError(f"{place}: {shown}; a label must be a whole number or a name")
    if not kinds:
        raise InputError(f"{place}: none of the {counted(len(values), 'image')} has a label")
    if names is not None:
        return _of_class_label(plain, none, place, row_name, names)
    if len(kinds) > 1:
        some = [f"{row_name(rows[0])} has {str(values[rows[0]])[:40]!r}" for rows in kinds.values()]
        raise InputError(f"{place} mixes kinds of labels: {named(some)}; they must all be numbers or all be names")
    kind = next(iter(kinds))
    if kind == "bool":
        return Labels([None if v is None else int(v) for v in _without(plain, none)], {0: "False", 1: "True"})
    numbers = whole_numbers(plain, none, kind)
    if numbers is None:
        classes = sorted({v for v in _without(plain, none) if v is not None})
        index = {name: label for label, name in enumerate(classes)}
        return Labels([None if v is None else index[v] for v in _without(plain, none)], dict(enumerate(classes)))
    _check_range(numbers, place, row_name)
    return Labels(numbers, {})


def plain_value(value):
    """A value of NumPy, or of a type that behaves like a number, as Python's own."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Decimal):
        value = float(value) if value.is_finite() else None
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and (not value.strip() or value in ("nan", "NaN", "<NA>")):
        # The last are how NumPy and pandas write a missing value as text.
        return None
    return value


def _kind_of(value) -> str:
    if value is None:
        return "missing"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "number"
    return "name" if isinstance(value, str) else "odd"


def _without(values: list, none: list[int]) -> list:
    missing = set(none)
    return [None if number in missing else value for number, value in enumerate(values)]


def whole_numbers(values: list, none: list[int], kind: str = "name") -> list | None:
    """The values as whole numbers, `None` where there is none; nothing if they are names."""
    there = _without(values, none)
    if kind == "number":
        return there
    if not all(v is None or _WHOLE.fullmatch(v) for v in there):
        return None
    numbers = [None if v is None else int(v.partition(".")[0]) for v in there]
    # Two spellings of one number are two names.
    spelt = {(v.strip(), n) for v, n in zip(there, numbers) if v is not None}
    return numbers if len(spelt) == len({n for _, n in spelt}) else None


def _check_range(numbers: list, place: str, row_name):
    for row, number in enumerate(numbers):
        if number is not None and not 0 <= number <= LARGEST_LABEL:
            raise InputError(
                f"{place}: {row_name(row)} has {number}; a label must be a name, or a number from 0 to"
                f" {LARGEST_LABEL:,}"
            )


def _of_class_label(values: list, none: list[int], place: str, row_name, names: list[str]) -> Labels:
    missing = set(none)
    labels = []
    for row, value in enumerate(values):
        # `datasets` writes a missing label as -1.
        if row in missing or value == -1:
            labels.append(None)
        elif isinstance(value, int) and 0 <= value < len(names):
            labels.append(int(value))
        else:
            raise InputError(f"{place}: {row_name(row)} has {value!r}, but the column names {len(names)} classes")
    if all(label is None for label in labels):
        raise InputError(f"{place}: none of the {counted(len(values), 'image')} has a label")
    return Labels(labels, dict(enumerate(names)))


def labels_of_folders(names: list[str], split_level: int | None, place: str) -> list[str | None]:
    """
    The class of each image by its folder: the first level of folders below the splits, at any depth; `None` for images
    that lie beside the class folders. Folders that hold all the others are no classes.

    Raises:
        [`InputError`]: If there are no class folders, or only one.
    """
    parts = [name.split("/")[:-1] for name in names]
    if split_level is not None:
        parts = [folders[:split_level] + folders[split_level + 1 :] for folders in parts]
    level = 0
    while len({tuple(folders[: level + 1]) for folders in parts}) == 1 and len(parts[0]) > level:
        level += 1
    classes = [folders[level] if len(folders) > level else None for folders in parts]
    there = {name for name in classes if name is not None}
    if len(there) > 1:
        return classes
    looked = "folders below the splits" if split_level is not None else "folders"
    only = next(iter(there), None) or (parts[0][level - 1] if level else None)
    if only is not None:
        raise InputError(
            f"{place}: there is only one class folder, {only}; labels are looked for {LOOKED} and in the names of"
            f" {looked}, of which there must be two or more"
        )
    raise InputError(
        f"{place}: these images have no labels; they are looked for {LOOKED} and in the names of {looked}, and all"
        " images lie in one place"
    )
