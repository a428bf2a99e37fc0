"""The paths that a person gives, typed, in a file or in Python: what a shell makes of them, in one place."""

import errno
import os
import re
from dataclasses import fields
from typing import Any

from .errors import InputError


# Options that name a file or a folder, and those that may name something on the Hub as well.
PATH_OPTIONS = {
    *("output_dir", "train_data_dir", "cache_dir", "logging_dir", "resume_from_checkpoint", "output", "config"),
}
PLACE_OPTIONS = {"dataset_name", "pretrained_teacher_model", "model_config_name_or_path", "feature_extractor"}
# Of these, several may be given by commas.
SEVERAL = {"feature_extractor"}

_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))")


def settle_path(value: Any, name: str) -> str:
    """
    A path as the system takes it: `~`, `~user` and the variables of the environment stand for what a shell makes of
    them. It is not made absolute, and a name on the Hub stays what it is.

    Args:
        value (`str` or `os.PathLike`): What was given.
        name (`str`): What a message calls it, such as `--output_dir`.

    Raises:
        [`InputError`]: If it is empty, names a user or a variable that there is not, or cannot be looked up.
    """
    try:
        given = os.fsdecode(value)
    except TypeError:
        raise InputError(f"{name} must be a path, not {value!r}") from None
    if not given.strip():
        raise InputError(f"{name} is empty: give a path, or leave it out")
    if "\0" in given:
        raise InputError(f"{name} {given!r} holds a zero byte: it must be a path")
    path = _with_home(given, name)
    if "$" in path and not os.path.lexists(path):
        path = _VARIABLE.sub(lambda match: _value_of(match, given, name), path)
    try:
        os.stat(path)
    except OSError as error:
        # What is not there may be made, or be on the Hub. Everything else would go wrong later.
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise InputError(f"{name} {path[:200]} cannot be used: {error.strerror}") from error
    return path


def _with_home(given: str, name: str) -> str:
    path = os.path.expanduser(given)
    # A shell leaves a name that is no user's as it is.
    if not path.startswith("~") or (given.split("/")[0] != "~" and os.path.lexists(given)):
        return path
    user = given.split("/")[0][1:]
    missing = f"there is no user {user}" if user else "there is no home folder: set HOME"
    raise InputError(f"{name} {given}: {missing}; write ./{given} for a folder of that name")


def _value_of(match: re.Match, given: str, name: str) -> str:
    variable = match[1] or match[2]
    value = os.environ.get(variable)
    if value:
        return value
    if match[1] is None and match.string[: match.start()].rsplit("/", 1)[-1]:
        # A dollar sign within a name, such as cash$in, is one.
        return match[0]
    raise InputError(f"{name} {given}: the environment has no {variable}; set it, or write the path out")


def settle_option(value: Any, name: str) -> str:
    """[`settle_path`] for an option that may hold several places by commas."""
    if name not in SEVERAL or not isinstance(value, str):
        return settle_path(value, f"--{name}")
    return ",".join(settle_path(word.strip(), f"--{name}") for word in value.split(","))


def resolve_paths(config) -> None:
    """Settle every path of a dataclass of options; what was not given, and empty defaults, stay as they are."""
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name in PATH_OPTIONS | PLACE_OPTIONS and value is not None and value != field.default:
            setattr(config, field.name, settle_option(value, field.name))
