"""The words in which a data set is spoken of: numbers, names and reasons, each of which fits in one line of a log."""

import logging
from collections.abc import Iterable

from PIL import UnidentifiedImageError

from ..errors import describe_reason


logger = logging.getLogger(__name__)

# Of a name or a reason.
MOST_CHARACTERS = 120


def clean(text: str) -> str:
    """A text without what breaks a line or cannot be written to a terminal, shortened."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 3] + "..."


def count(number: int, noun: str) -> str:
    """`1 image`, `2 images`, `2 classes`."""
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{ending}"


def enumerate_names(names: Iterable, most: int = 3) -> str:
    """The first names, and how many more there are."""
    names = [clean(str(name)) for name in names]
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest:,} more" if rest > 0 else "")


def explain(error: BaseException) -> str:
    """What was the matter in the first place."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, UnidentifiedImageError):
        # Pillow names a buffer in memory.
        return "no image that can be read"
    if isinstance(error, OSError) and error.strerror:
        return clean(error.strerror)
    return clean(describe_reason(error))


def notice(text: str, names: Iterable = ()) -> None:
    """Say something about the data in one line of the log, with the first of the `names`."""
    logger.warning("%s", f"{text}: {enumerate_names(names)}" if names else text)
