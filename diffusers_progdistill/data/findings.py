"""What of a data set is skipped or changed: counted and named, each kind in one line."""

import logging
from collections import Counter

from PIL import UnidentifiedImageError

from ..errors import describe_reason


logger = logging.getLogger(__name__)

# Names that a line shows of each kind, and characters of a name or reason.
MOST_NAMES, MOST_CHARACTERS = 5, 120

SKIPPED, MISSING, REPLACED = "skipped", "missing", "replaced"

# What the lines say. `{n}` is the count, `{all}` the number of images that were looked at.
SENTENCES = {
    SKIPPED: "{n} of {all} images could not be read and were skipped",
    MISSING: "{n} of {all} rows hold no image and were skipped",
    REPLACED: "images that could not be read in training, each replaced by the next of the data set: {n}",
    "transparent": "{n} of {all} images are transparent: they were laid on {ground} (--background_color)",
    "gray": "{n} of {all} images have colours: they are trained on in gray, since the model has one channel",
    "range": "{n} of {all} images have 32-bit values: black is 0, and white 1, 255 or 65535, the least that holds all",
    "page": "{n} of {all} images are animated or have several pages: only the first is used",
    "enlarged": "{n} of {all} images are smaller than {size} and were enlarged",
    "cropped": "{n} of {all} images are not square: {fit} (--center_crop)",
}


class Findings:
    """
    Kinds of findings, with the images that they were made in.

    Args:
        total (`str`): How many images are looked at.
        words (`dict[str, str]`, *optional*): What the sentences name: `ground`, `size`, `fit`.
    """

    def __init__(self, total: str, words: dict[str, str] | None = None):
        self._words = {"all": total, **(words or {})}
        self._counts: Counter[str] = Counter()
        self._names: dict[str, list[str]] = {}
        # Files that could not be read in training may be drawn again.
        self._said: set[int] = set()

    def note(self, kind: str, number: int, name: str, reason: str = "", say: bool = False):
        """
        Count a finding of one image. What is said at once is counted and said once an image, however often it is met.

        Args:
            kind (`str`): One of [`SENTENCES`].
            number, name (`int`, `str`): The image.
            reason (`str`, *optional*): What was raised.
            say (`bool`, *optional*): Give a notice now: of each of the first, then whenever their number has doubled.
        """
        if say and number in self._said:
            return
        self._counts[kind] += 1
        shown, count = f"{name} ({reason})" if reason else name, self._counts[kind]
        if count <= MOST_NAMES:
            self._names.setdefault(kind, []).append(shown)
        if say:
            self._said.add(number)
        if say and (count <= MOST_NAMES or count & (count - 1) == 0):
            logger.warning("%s could not be read: the next image takes its place (%d so far)", shown, count)

    def count(self, *kinds: str) -> int:
        """Findings of these kinds; an image has at most one of each."""
        return sum(self._counts[kind] for kind in kinds)

    def lines(self) -> list[str]:
        """One line for each kind, in the order of [`SENTENCES`]."""
        return [self._line(kind) for kind in SENTENCES if kind in self._counts]

    def say(self, *kinds: str):
        """Give the line of each kind, or of those that are named, as a notice."""
        for kind in kinds or SENTENCES:
            if kind in self._counts:
                logger.warning("%s", self._line(kind))

    def _line(self, kind: str) -> str:
        count, names = self._counts[kind], self._names[kind]
        text = SENTENCES[kind].format(n=f"{count:,}", **self._words)
        return f"{text}: {', '.join(names)}{', ...' if count > len(names) else ''}"


def reason_of(error: Exception) -> str:
    """What was raised, in one line."""
    if isinstance(error, UnidentifiedImageError):
        # Pillow names a buffer in memory.
        return "no image that can be read"
    if isinstance(error, OSError) and error.strerror:
        return printable(error.strerror)
    return printable(describe_reason(error))


def printable(text: str) -> str:
    """A text without what breaks a line or cannot be written to a terminal, shortened."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 3] + "..."
