"""Which images are the training set: real splits are told from classes that are called train or test."""

import re

from ..errors import InputError
from .notices import counted, named


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


def split_of_folder(name: str) -> str | None:
    """The split that a folder is called by: train, test or validation."""
    match = _FOLDER.fullmatch(name)
    return _SPLIT_OF[match[1].lower()] if match else None


def split_of_table(name: str) -> str | None:
    """The split of a table by its own name, or by the folder that it lies in."""
    *folders, file = name.split("/")
    stem = file.rpartition(".")[0]
    shard = _SHARD.fullmatch(stem)
    if match := _FILE.fullmatch(shard[1] if shard else stem):
        return _SPLIT_OF[match[1].lower()]
    if splits := [split for folder in folders if (split := split_of_folder(folder))]:
        return splits[-1]
    return shard[1] if shard else None


def splits_of_tables(names: list[str]) -> list[str | None]:
    """The split of each table; those of no split are the training set of a test or validation set beside them."""
    splits = [split_of_table(name) for name in names]
    there = set(splits) - {None}
    rest = "train" if there and there <= {"test", "validation"} else None
    return [split or rest for split in splits]


def split_depth(names: list[str]) -> int | None:
    """
    The level of folders that are splits: every image lies below a folder of that level that is called as a split, one
    is the training set, and another is not. Class folders called train or test, beside others, are none.
    """
    if not names:
        return None
    candidates = None
    for name in names:
        folders = name.split("/")[:-1]
        found = {level for level, folder in enumerate(folders) if split_of_folder(folder)}
        candidates = found if candidates is None else candidates & found
        if not candidates:
            return None
    for level in sorted(candidates):
        splits = {split_of_folder(folder) for folder in {name.split("/")[level] for name in names}}
        if "train" in splits and len(splits) > 1:
            return level
    return None


def choose_split(splits: list[str | None], wanted: str | None, flag: str, noun: str) -> tuple[list[bool], str | None]:
    """
    Which entries are used.

    Args:
        splits (`list[str | None]`): The split of each; all the same, or of one name or none, are no splits.
        wanted (`str` or `None`): `--train_split`; `None` stands for train.
        flag, noun (`str`): What a message calls the data set and its entries.

    Returns:
        `tuple[list[bool], str | None]`: Whether each is used, and a notice of what is left out.

    Raises:
        [`InputError`]: If there is no such split.
    """
    there = sorted({split for split in splits if split is not None})
    asked = canonical(wanted, there)
    if asked not in there and (wanted is None or asked == "train") and len(there) < 2:
        # What is not divided is the training set.
        return [True] * len(splits), None
    if asked not in there:
        shown = ", ".join(there) if there else "there are none"
        option = (
            f"--train_split {wanted} is not a split of {flag}" if wanted is not None else f"{flag} has no split train"
        )
        raise InputError(f"{option}: give --train_split with one of its splits ({shown})")
    if wanted is None and len(there) < 2:
        return [True] * len(splits), None
    used = [split == asked for split in splits]
    left = sorted({split or "files of no split" for split in splits} - {asked})
    text = f"{flag}: the split {asked} is used; left out: {counted(used.count(False), noun)} of {named(left, 5)}"
    return used, text if left else None


def canonical(wanted: str | None, there: list[str]) -> str:
    """A split as the data name it: `val` and `dev` are `validation`."""
    if wanted is None:
        return "train"
    return wanted if wanted in there else _SPLIT_OF.get(wanted.lower(), wanted)


def folders_called_splits(names: list[str]) -> list[str]:
    """Folders of the first level that are called as splits, whatever lies beside them."""
    folders = {name.split("/")[0] for name in names if "/" in name}
    return sorted(folder for folder in folders if split_of_folder(folder))
