"""What a folder, a table or the Hub holds, before any image is read."""

from collections.abc import Callable
from dataclasses import dataclass

from .labels import Labels
from .notices import counted, named, notice


@dataclass
class Found:
    """
    Attributes:
        entries (`list` or `datasets.Column`): The images, undecoded.
        labels ([`Labels`], *optional*): Their labels, if any were asked for.
        row_name (`Callable[[int], str]`): What a message calls an image.
    """

    entries: object
    labels: Labels | None
    row_name: Callable[[int], str]


def labelled_rows(labels: Labels | None, place: str, row_name: Callable[[int], str]) -> list[int] | None:
    """The numbers of the images with a label, with a notice of the others; `None` if these are all."""
    if labels is None or not (missing := labels.missing()):
        return None
    count = len(labels.values)
    names = named([row_name(number) for number in missing])
    notice(f"{place}: left out {counted(len(missing), 'image')} of {count:,} without a label: {names}")
    left = set(missing)
    return [number for number in range(count) if number not in left]
