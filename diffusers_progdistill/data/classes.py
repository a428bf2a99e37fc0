"""The classes of the data and those of a teacher: matched by name where both have names, else by number."""

from dataclasses import dataclass

import torch

from ..errors import InputError
from .images import ImageData
from .notices import enumerate_names, notice


OPTION = "--class_column"


@dataclass(frozen=True)
class TeacherClasses:
    """The labels that a network was trained with, `None` if nothing says that, and the names that it has for them."""

    labels: list[int] | None
    names: dict[int, str]


def match_classes(used: dict[int, str], has_names: bool, teacher: TeacherClasses) -> dict[int, int]:
    """The teacher's label of each that is `used` in the data, there with its name or its number as text."""
    by_name = {name: label for label, name in teacher.names.items()}
    # A teacher of whole numbers may have them in any order: then the number is the name.
    if by_name and (has_names or any(name.isdecimal() for name in by_name)):
        unknown = [name for name in used.values() if name not in by_name]
        known, mapping = f"its classes are {enumerate_names(by_name, 10)}", by_name
    else:
        labels = set(used if teacher.labels is None else teacher.labels)
        unknown = [f"{used[k]} (label {k})" if has_names else str(k) for k in used if k not in labels]
        known, mapping = f"it knows the {len(labels)} labels {spans(sorted(labels))}", None
    if unknown:
        classes = "class" if len(unknown) == 1 else "classes"
        raise InputError(f"{OPTION}: the teacher does not know the {classes} {enumerate_names(unknown)}; {known}")
    return {label: mapping[name] if mapping else label for label, name in used.items()}


def spans(labels: list[int]) -> str:
    """Sorted labels in few words: `0 to 3, 7`."""
    ends: list[list[int]] = []
    for label in labels:
        if ends and label == ends[-1][1] + 1:
            ends[-1][1] = label
        else:
            ends.append([label, label])
    return enumerate_names((f"{first} to {last}" if first < last else first for first, last in ends), 6)


def fit_classes(data: ImageData, teacher: TeacherClasses) -> None:
    """Give the data the labels and names of the teacher, with a notice of what is not as plain as it looks."""
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
    names = teacher.names or ({} if is_renamed else own_names)
    data.class_names = [names.get(label, str(label)) for label in range(max(names) + 1)] if names else None
    shown = enumerate_names((f"{used[old]} is label {new}" for old, new in mapping.items()), 10)
    total = len(mapping) if teacher.labels is None else len(teacher.labels)
    rest = f"; {len(mapping)} of its {total} classes are used" if total != len(mapping) else ""
    if has_names and not teacher.names:
        notice(f"{OPTION}: the teacher has no names of its classes, so they are numbered: {shown}{rest}")
    elif is_renamed:
        notice(f"{OPTION}: classes are matched with the teacher's by name: {shown}{rest}")
    elif rest:
        notice(f"{OPTION}: labels {spans(sorted(mapping.values()))} of the teacher's {total} are used")
