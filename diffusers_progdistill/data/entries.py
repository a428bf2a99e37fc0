"""Entries of a data set, looked up one after the other."""

from collections.abc import Iterator, Sequence

from .findings import printable


# Entries that are looked up at once: their files, not yet decoded, must fit beside the decoded images.
READ_AT_ONCE = 50


def list_entries(column, numbers: Sequence[int]) -> Iterator:
    """
    Entries of a column or list one after the other; for one that cannot be looked up, what was raised.

    They are looked up many at once: `datasets` takes longer to look a single one up than a small image takes to
    decode.
    """
    for first in range(0, len(numbers), READ_AT_ONCE):
        some = list(numbers[first : first + READ_AT_ONCE])
        try:
            found = [column[n] for n in some] if isinstance(column, list) else list(column[some])
        except Exception:  # of one of them
            found = [_entry_of(column, n) for n in some]
        yield from found


def _entry_of(column, number: int):
    try:
        return column[number]
    except Exception as error:  # concerns this entry alone
        return error


def name_of(entry, number: int) -> str:
    """What a notice calls an entry: its file and the folder that it lies in, or its row."""
    path = entry.get("path") if isinstance(entry, dict) else entry if isinstance(entry, str) else None
    return printable("/".join(str(path).split("/")[-2:])) if path else f"row {number}"
