"""What is left out of a data set, in one line a kind: how many, and the names of the first."""

import logging

from .findings import printable


logger = logging.getLogger(__name__)


def counted(number: int, noun: str) -> str:
    """`1 image`, `2 images`, `2 classes`."""
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun}{'es' if noun.endswith('s') else 's'}"


def named(names, most: int = 3) -> str:
    """The first names, and how many more there are."""
    names = [printable(str(name)) for name in names]
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest:,} more" if rest > 0 else "")


def notice(text: str, names=()):
    """Say something about the data in one line of the log, with the first of the `names`."""
    logger.warning("%s", f"{text}: {named(names)}" if names else text)
