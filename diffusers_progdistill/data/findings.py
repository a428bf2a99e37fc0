"""What of a data set's images is skipped or changed: counted and named, each kind in one line."""

import logging


logger = logging.getLogger(__name__)

# Names that a line shows of each kind.
MOST_NAMES = 5

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
    """Kinds of findings, with the images that they were made in; `words` are what the sentences name."""

    def __init__(self, **words: str) -> None:
        self._words = words
        self._counts = dict.fromkeys(SENTENCES, 0)
        self._names: dict[str, list[str]] = {kind: [] for kind in SENTENCES}
        # Files that could not be read in training may be drawn again.
        self._said: set[int] = set()

    def note(self, kind: str, number: int, name: str, reason: str = "", say: bool = False) -> None:
        """Count a finding; with `say` once an image, and each of the first and every doubling is said at once."""
        if say and number in self._said:
            return
        self._counts[kind] += 1
        shown, count = f"{name} ({reason})" if reason else name, self._counts[kind]
        if count <= MOST_NAMES:
            self._names[kind].append(shown)
        if say:
            self._said.add(number)
            if count <= MOST_NAMES or count & (count - 1) == 0:
                logger.warning("%s could not be read: the next image takes its place (%d so far)", shown, count)

    def count(self, *kinds: str) -> int:
        """Findings of these kinds; an image has at most one of each."""
        return sum(self._counts[kind] for kind in kinds)

    def say(self, *kinds: str) -> None:
        """Give the line of each kind, or of those that are named, as a notice."""
        for kind in kinds or SENTENCES:
            if count := self._counts[kind]:
                text = SENTENCES[kind].format(n=f"{count:,}", **self._words)
                names = ", ".join(self._names[kind])
                logger.warning("%s: %s%s", text, names, ", ..." if count > MOST_NAMES else "")
