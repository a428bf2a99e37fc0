"""The paths that a person gives, typed, in a file or in Python: what a shell makes of them, in one place."""

import errno
import os
import re
from dataclasses import fields
from typing import Any

from .errors import InputError


# Options that name a file or a folder, or may do so beside something on the Hub.
PATH_OPTIONS = {
    *("output_dir", "train_data_dir", "cache_dir", "logging_dir", "resume_from_checkpoint", "output", "config"),
    *("dataset_name", "pretrained_teacher_model", "model_config_name_or_path", "feature_extractor"),
}
# Of these, several may be given by commas.
SEVERAL = {"feature_extractor"}

_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))")


def settle_path(value: Any, name: str) -> str:
    """
    A path as the system takes it: `~`, `~user` and the variables of the environment stand for what a shell makes of
    them. It is not made absolute, and a name on the Hub stays what it is. `name` is what a message calls it.
    """
    try:
        given = os.fsdecode(value)
    except TypeError:
        raise InputError(f"{name} must be a path, not {value!r}") from None
    if not given.strip():
        raise InputError(f"{name} is empty: give a path, or leave it out")
    if "\0" in given:
        raise InputError(f"{name} {given!r} holds a zero byte: it must be a path")
    path = _expand_home(given, name)
    if "$" in path and not os.path.lexists(path):
        path = _VARIABLE.sub(lambda match: _read_variable(match, f"{name} {given}"), path)
    try:
        os.stat(path)
    except OSError as error:
        # What is not there may be made, or be on the Hub. Everything else would go wrong later.
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise InputError(f"{name} {path[:200]} cannot be used: {error.strerror}") from error
    return path


def _expand_home(given: str, name: str) -> str:
    path, user = os.path.expanduser(given), given.split("/")[0][1:]
    # A shell leaves a name that is no user's as it is.
    if not path.startswith("~") or (user and os.path.lexists(given)):
        return path
    missing = f"there is no user {user}" if user else "there is no home folder: set HOME"
    raise InputError(f"{name} {given}: {missing}; write ./{given} for a folder of that name")


def _read_variable(match: re.Match, what: str) -> str:
    variable = match[1] or match[2]
    if value := os.environ.get(variable):
        return value
    if match[1] is None and match.string[: match.start()].rsplit("/", 1)[-1]:
        # A dollar sign within a name, such as cash$in, is one.
        return match[0]
    raise InputError(f"{what}: the environment has no {variable}; set it, or write the path out")


def resolve_paths(config: Any) -> None:
    """Settle every path of a dataclass of options; what was not given, and empty defaults, stay as they are."""
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name in PATH_OPTIONS and value is not None and value != field.default:
            several = field.name in SEVERAL and isinstance(value, str)
            places = [place.strip() for place in value.split(",")] if several else [value]
            setattr(config, field.name, ",".join(settle_path(place, f"--{field.name}") for place in places))
