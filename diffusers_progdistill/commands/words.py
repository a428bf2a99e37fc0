"""What a person writes as the value of an option, on a command line or in a file: numbers, words, truth values."""

import argparse
from collections.abc import Callable, Iterable


TRUE = {"true", "yes", "on", "y", "t", "1"}
FALSE = {"false", "no", "off", "n", "f", "0"}
# What choices call the absence of something.
NOTHING = ("no", "none")


def truth(text: str) -> bool:
    """A switch's value."""
    word = str(text).strip().lower()
    if word in TRUE | FALSE:
        return word in TRUE
    raise argparse.ArgumentTypeError(f"must be true or false, not {text!r}")


def whole_number(text: str) -> int:
    """`1000`, `1_000`, `1e3`, `1000.0` or `0x3e8`."""
    for read in (int, lambda word: int(word, 0), _whole):
        try:
            return read(text.strip())
        except (ValueError, OverflowError):
            continue
    raise argparse.ArgumentTypeError(f"must be a whole number, not {text!r}")


def _whole(text: str) -> int:
    number = float(text)
    if not number.is_integer():
        raise ValueError
    return int(number)


def number(text: str) -> float:
    """`0.0001`, `1e-4` or `1_000`. YAML's own words for what is not finite are understood, to be refused as such."""
    word = text.strip()
    try:
        return float(word.lower().replace(".inf", "inf").replace(".nan", "nan"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, not {text!r}") from None


def choice(choices: Iterable[str]) -> Callable[[str], str]:
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


def of_action(action: argparse.Action) -> Callable[[str], object] | None:
    """How an option of a parser reads its words, where that is not as text."""
    if action.choices is not None:
        return choice(action.choices)
    if action.nargs == "?" or action.nargs == 0:
        return truth
    return {int: whole_number, float: number}.get(action.type)
