"""The classes of the data and those of a teacher: matched by name where both have names, else by number."""

from dataclasses import dataclass

import torch

from ..errors import InputError
from .images import ImageData
from .notices import counted, named, notice


OPTION = "--class_column"


@dataclass(frozen=True)
class TeacherClasses:
    """
    What a class-conditional network knows.

    Attributes:
        labels (`list[int]` or `None`): The labels it was trained with; `None` if nothing says that.
        names (`dict[int, str]`): Their names, as far as it has any.
    """

    labels: list[int] | None
    names: dict[int, str]


def match_classes(used: dict[int, str], has_names: bool, teacher: TeacherClasses) -> dict[int, int]:
    """
    The teacher's label of each label of the data.

    Args:
        used (`dict[int, str]`): The labels that occur in the data, with their names or their number as text.
        has_names (`bool`): Whether these are names.
        teacher ([`TeacherClasses`]): What the teacher knows.

    Raises:
        [`InputError`]: If the teacher does not know one of them.
    """
    by_name = {name: label for label, name in teacher.names.items()}
    # A teacher of whole numbers may have them in any order: then the number is the name.
    if by_name and (has_names or any(name.isdecimal() for name in by_name)):
        if unknown := [name for name in used.values() if name not in by_name]:
            raise InputError(
                f"{OPTION}: the teacher does not know the {_classes(unknown)} {named(unknown)}; its classes are"
                f" {named(by_name, 10)}"
            )
        return {label: by_name[name] for label, name in used.items()}
    if teacher.labels is not None and (unknown := [label for label in used if label not in set(teacher.labels)]):
        shown = [f"{used[label]} (label {label})" if has_names else str(label) for label in unknown]
        raise InputError(
            f"{OPTION}: the teacher does not know the {_classes(unknown)} {named(shown)}; it knows the"
            f" {len(teacher.labels)} labels {spans(teacher.labels)}"
        )
    return {label: label for label in used}


def _classes(some) -> str:
    return "class" if len(some) == 1 else "classes"


def spans(labels: list[int]) -> str:
    """Sorted labels in few words: `0 to 3, 7`."""
    parts, first = [], None
    for label, following in zip(labels, [*labels[1:], None]):
        first = label if first is None else first
        if following != label + 1:
            parts.append(str(first) if first == label else f"{first} to {label}")
            first = None
    return named(parts, 6)


def fit_classes(data: ImageData, teacher: TeacherClasses):
    """
    Give the data the labels and names of the teacher, and say in one notice what is not as plain as it looks.

    Raises:
        [`InputError`]: If the teacher does not know one of the classes.
    """
    own_names = dict(enumerate(data.class_names or []))
    used = {label: own_names.get(label, str(label)) for label in data.known_labels}
    has_names = bool(own_names) and any(name != str(label) for label, name in used.items())
    mapping = match_classes(used, has_names, teacher)
    is_renamed = any(old != new for old, new in mapping.items())
    if is_renamed:
        lookup = torch.zeros(max(mapping) + 1, dtype=torch.long)
        lookup[list(mapping)] = torch.tensor(list(mapping.values()))
        data.labels = lookup[data.labels]
        data.num_classes = max(data.known_labels) + 1
    names = teacher.names or (own_names if not is_renamed else {})
    data.class_names = [names.get(label, str(label)) for label in range(max(names) + 1)] if names else None
    _say(used, mapping, has_names, teacher)


def _say(used: dict[int, str], mapping: dict[int, int], has_names: bool, teacher: TeacherClasses):
    shown = named([f"{used[old]} is label {new}" for old, new in mapping.items()], 10)
    total = len(teacher.labels) if teacher.labels is not None else None
    rest = f"; {len(mapping)} of its {total} classes are used" if total not in (None, len(mapping)) else ""
    if has_names and not teacher.names:
        notice(f"{OPTION}: the teacher has no names of its classes, so they are numbered: {shown}{rest}")
    elif any(old != new for old, new in mapping.items()):
        notice(f"{OPTION}: classes are matched with the teacher's by name: {shown}{rest}")
    elif rest:
        labels = spans(sorted(mapping.values()))
        notice(f"{OPTION}: the data have {counted(len(mapping), 'class')} of the teacher's {total}: labels {labels}")
