"""What a person writes as the value of an option, on a command line or in a file: numbers, words, truth values."""

import argparse
import difflib
from collections.abc import Callable, Iterable
from typing import Any

from ..options import find_kind, list_choices


TRUE = {"true", "yes", "on", "y", "t", "1"}
FALSE = {"false", "no", "off", "n", "f", "0"}
# What choices call the absence of something.
NOTHING = ("no", "none")


def read_truth(text: str) -> bool:
    """A switch's value."""
    word = text.strip().lower()
    if word in TRUE | FALSE:
        return word in TRUE
    raise argparse.ArgumentTypeError(f"must be true or false, not {text!r}")


def read_whole_number(text: str) -> int:
    """`1000`, `1_000`, `1e3`, `1000.0` or `0x3e8`."""
    # The first takes 010 for ten, the second takes 0x3e8.
    for read in (int, lambda word: int(word, 0), float):
        try:
            value = read(text)
            if value == int(value):
                return int(value)
        except (ValueError, OverflowError):
            continue
    raise argparse.ArgumentTypeError(f"must be a whole number, not {text!r}")


def read_number(text: str) -> float:
    """`0.0001`, `1e-4` or `1_000`. YAML's own words for what is not finite are understood, to be refused as such."""
    try:
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, not {text!r}") from None


def make_choice_reader(choices: Iterable[str]) -> Callable[[str], str]:
    """One of some words, in whatever case. `off` and `false` mean the word for nothing where there is one."""
    known = {word.lower(): word for word in choices}

    def read(text: str) -> str:
        word = text.strip().lower()
        if word in FALSE:
            word = next((name for name in NOTHING if name in known), word)
        if word not in known:
            raise argparse.ArgumentTypeError(f"must be one of {', '.join(known.values())}, not {text!r}")
        return known[word]

    return read


def find_reader(annotation: Any) -> Callable[[str], Any]:
    """What reads the words of an option of a type."""
    if choices := list_choices(annotation):
        return make_choice_reader(choices)
    return {bool: read_truth, int: read_whole_number, float: read_number}.get(find_kind(annotation), str)


def suggest(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name, if a known one is near."""
    near = difflib.get_close_matches(name.lower(), known, 1)
    return f"; did you mean {near[0]}?" if near else ""
