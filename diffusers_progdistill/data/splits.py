"""Which images are the training set: real splits are told from classes that are called train or test."""

import re
from collections import Counter
from functools import cache

from ..errors import InputError
from .notices import count, enumerate_names, notice


_WORDS = {
    "train": ("train", "training"),
    "test": ("test", "testing", "eval", "evaluation"),
    "validation": ("validation", "valid", "val", "dev"),
}
_SPLIT_OF = {word: split for split, words in _WORDS.items() for word in words}
# train, train2017, train_set, val-images, ...
_FOLDER = re.compile(rf"({'|'.join(_SPLIT_OF)})(?:[-_ ]?(?:\d+|sets?|splits?|data|images|imgs))?", re.IGNORECASE)
# train-00000-of-00001, as the Hub names the files of a split, whatever it is called.
_SHARD = re.compile(r"(.+?)-\d{5}-of-\d{5}(?:[-_.].*)?")
_FILE = re.compile(rf"(?:.*[-_. ])?({'|'.join(_SPLIT_OF)})(?:[-_. ].*|\d*)", re.IGNORECASE)


@cache
def read_split(folder: str) -> str | None:
    """The split that a folder is called by: train, test or validation."""
    match = _FOLDER.fullmatch(folder)
    return _SPLIT_OF[match[1].lower()] if match else None


def read_table_splits(names: list[str]) -> list[str | None]:
    """The split of each table; those of no split are the training set of a test or validation set beside them."""
    splits = [_read_table_split(name) for name in names]
    there = set(splits) - {None}
    rest = "train" if there and there <= {"test", "validation"} else None
    return [split or rest for split in splits]


def _read_table_split(name: str) -> str | None:
    """The split of a table by its own name, or by the folder that it lies in."""
    *folders, file = name.split("/")
    stem = file.rpartition(".")[0]
    shard = _SHARD.fullmatch(stem)
    if match := _FILE.fullmatch(shard[1] if shard else stem):
        return _SPLIT_OF[match[1].lower()]
    splits = [split for split in map(read_split, folders) if split]
    return splits[-1] if splits else shard and shard[1]


def find_split_level(names: list[str]) -> int | None:
    """The level of folders that are splits: all are called so, and some are train but not all."""
    levels = None
    for name in names:
        here = {level for level, folder in enumerate(name.split("/")[:-1]) if read_split(folder)}
        levels = here if levels is None else levels & here
        if not levels:
            return None
    for level in sorted(levels or ()):
        splits = {read_split(name.split("/")[level]) for name in names}
        if "train" in splits and len(splits) > 1:
            return level
    return None


def choose_split(
    splits: list[str | None], wanted: str | None, flag: str, noun: str, sizes: list[int] | None = None
) -> list[int]:
    """The numbers of the entries that are used, with a notice of the others, each as one `noun` or as its `sizes`."""
    there = list(dict.fromkeys(split for split in splits if split is not None))
    asked = "train" if wanted is None else wanted
    # `val` and `dev` are `validation`.
    asked = asked if asked in there else _SPLIT_OF.get(asked.lower(), asked)
    # What is not divided is the training set.
    is_whole = len(there) < 2 and (wanted is None or (asked == "train" and not _WORDS.keys() & set(there)))
    if is_whole:
        return list(range(len(splits)))
    if asked not in there:
        what = f"{flag} has no split train" if wanted is None else f"--train_split {wanted} is not a split of {flag}"
        raise InputError(f"{what}: give --train_split with one of its splits ({', '.join(there) or 'there are none'})")
    left: Counter[str] = Counter()
    for split, size in zip(splits, sizes or [1] * len(splits)):
        left[split or "files of no split"] += size
    del left[asked]
    if left:
        shown = enumerate_names((f"{split} ({count(number, noun)})" for split, number in sorted(left.items())), 5)
        notice(f"{flag}: the split {asked} is used; left out: {shown}")
    return [number for number, split in enumerate(splits) if split == asked]
