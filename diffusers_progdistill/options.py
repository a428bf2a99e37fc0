"""How an option is declared: a dataclass field that knows its help text, its valid values and what it changes."""

import functools
import types
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from .errors import InputError
from .paths import resolve_paths


class Valid(NamedTuple):
    """The values that an option may have: a test, and what a message says of them."""

    is_right: Callable[[Any], bool]
    what: str


POSITIVE = Valid(lambda value: 0 < value < float("inf"), "a positive number")
NOT_NEGATIVE = Valid(lambda value: 0 <= value < float("inf"), "zero or a positive number")
SHARE = Valid(lambda value: 0 <= value < 1, "in [0, 1)")


def option(default: Any, help: str, valid: Valid | None = None, affects_weights: bool = True) -> Any:
    """
    A dataclass field for the command line. What is `None` by default may also be `None` beside its `valid` values;
    what does not affect the weights of a run may differ when an output folder is resumed.
    """
    return field(default=default, metadata={"help": help, "valid": valid, "affects_weights": affects_weights})


neutral_option = functools.partial(option, affects_weights=False)


@dataclass
class Options:
    """What dataclasses of options have in common: paths mean what they mean in a shell, and values are checked."""

    def __post_init__(self) -> None:
        resolve_paths(self)

    def check(self) -> None:
        """Raise [`InputError`] for values that cannot be right, whatever they are given with."""
        # They may have been set since.
        resolve_paths(self)
        for one in fields(self):
            value, choices, valid = getattr(self, one.name), list_choices(one.type), one.metadata["valid"]
            if value is None and one.default is None:
                continue
            if choices:
                self.require(one.name, value in choices, f"one of {', '.join(choices)}")
            if valid is not None:
                self.require(one.name, valid.is_right(value), valid.what)

    def require(self, name: str, is_right: bool, what: str) -> None:
        """Raise [`InputError`] about an option unless its value is right."""
        if not is_right:
            raise InputError(f"--{name} must be {what}, not {getattr(self, name)}")


@dataclass
class DataOptions(Options):
    """The images of a run or of an evaluation."""

    dataset_name: str | None = option(
        None, "'digits' (the 1,797 real 8x8 scans that scikit-learn ships), or the name of a data set on the Hub."
    )
    dataset_config_name: str | None = option(None, "The configuration of the data set on the Hub.")
    train_data_dir: str | None = option(
        None, "A folder of images (one subfolder a class, if there are classes), a parquet file or a folder of them."
    )
    train_split: str | None = option(None, "The split that is used. Default: train, if there are splits.")
    follow_links: bool = option(False, "Use images that links in the folder lead to, wherever they are.")
    image_column: str = option("image", "The column of the data set that holds the images.")
    class_column: str | None = option(None, "The column of the class labels; 'label' reads the class folders.")
    resolution: int | None = option(None, "Height and width of the images. Default: the model's.", POSITIVE)
    center_crop: bool = option(True, "Crop the middle of images that are not square; otherwise they are squeezed.")
    background_color: str = option("white", "The ground under transparent images: a colour's name or '#rrggbb'.")
    cache_dir: str | None = neutral_option(None, "Where downloaded models and data sets are kept.")
    hub_token: str | None = neutral_option(None, "Token for private models and data sets; better given as HF_TOKEN.")


def find_kind(annotation: Any) -> Any:
    """The type of an option's value when it is given: `int` of `int | None`."""
    if get_origin(annotation) in (Union, types.UnionType):
        return next(kind for kind in get_args(annotation) if kind is not types.NoneType)
    return annotation


def list_choices(annotation: Any) -> tuple[str, ...]:
    """The words that an option may be, if it is a choice."""
    kind = find_kind(annotation)
    return get_args(kind) if get_origin(kind) is Literal else ()
