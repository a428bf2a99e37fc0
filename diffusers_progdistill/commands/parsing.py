"""Command lines and YAML files into config dataclasses: one parser checks both, errors are one line."""

import argparse
import copy
import difflib
import errno
import re
import sys
from dataclasses import fields
from typing import NoReturn, get_args

from transformers.hf_argparser import HfArgumentParser

from ..errors import DiskError, InputError, PublishError, StoppedBySignal
from ..paths import settle_path
from . import words
from .options_file import flags_of_file
from .terminal import lasting_output


# Parts of a YAML file that are for one command.
SECTIONS = ("train-teacher", "convert", "distill", "evaluate", "sample", "push", "card")

# What a disk, a share, the rights of a file or a limit of the system brings about; not a fault of the program.
OF_THE_SYSTEM = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.EACCES, errno.EPERM),
    *(errno.EMFILE, errno.ENFILE, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR),
}


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the default of each option; where there is none, the help text says what is done."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


class OneLineParser(HfArgumentParser):
    """`HfArgumentParser` that takes no abbreviations and says what is wrong in one line, without the usage."""

    def __init__(self, dataclass_types, **kwargs):
        super().__init__(dataclass_types, allow_abbrev=False, **kwargs)
        # Switches that may be left open get the counterpart that the parent class gives to those that are on.
        for one in fields(dataclass_types):
            if one.default is None and bool in get_args(one.type):
                names = f"--no_{one.name}", f"--no-{one.name.replace('_', '-')}"
                self.add_argument(
                    *names, dest=one.name, action="store_false", default=None, help=f"Set --{one.name} to false."
                )
        for action in self._actions:
            # Numbers, words and truth values mean the same on a command line and in a file.
            action.type = words.of_action(action) or action.type
            action.metavar = f"{{{','.join(map(str, action.choices))}}}" if action.choices else action.metavar
            action.choices = None if action.choices else action.choices

    @staticmethod
    def _parse_dataclass_field(parser, one):
        # The parent hands all of the metadata to argparse.
        one = copy.copy(one)
        one.metadata = {"help": one.metadata["help"]}
        if one.default is None and bool in get_args(one.type):
            one.metadata |= {"nargs": "?", "const": True}
        HfArgumentParser._parse_dataclass_field(parser, one)

    def error(self, message) -> NoReturn:
        if unknown := re.match(r"unrecognized arguments: (\S+)", message):
            name = unknown[1].split("=")[0]
            if not name.startswith("-"):
                raise InputError(f"unexpected word {name!r}: options begin with --")
            near = difflib.get_close_matches(name.lower(), [f"--{k}" for k in self.options() if "-" not in k], 1)
            advice = f"; did you mean {near[0]}?" if near else ""
            raise InputError(f"unknown option {name}{advice}")
        # argparse says `argument --seed/--x: ...`.
        raise InputError(re.sub(r"^argument (--\w+)\S*:", r"\1", message))

    def options(self) -> dict[str, argparse.Action]:
        """Every long option without its dashes."""
        return {o[2:]: a for a in self._actions for o in a.option_strings if o.startswith("--") and o != "--help"}


def without_replaced_data(flags: list[str], typed: list[str]) -> list[str]:
    """The flags of a file without its data set, if another one is typed: there can only be one."""
    sources = ("--dataset_name", "--train_data_dir", "--dataset_config_name")
    names = {"--" + word[2:].split("=")[0].replace("-", "_") for word in typed if word.startswith("--")}
    if not names & set(sources[:2]):
        return flags
    return [flag for flag in flags if flag.split("=")[0] not in sources]


def parse(config_class, argv: list[str], prog: str, description: str, defaults: dict | None = None):
    """
    Parse a command line into a config, with the flags of `--config FILE.yaml` placed before the typed ones.

    Args:
        config_class (`type`): A dataclass.
        argv (`list[str]`): The words after the command's name.
        prog, description (`str`): For the help page.
        defaults (`dict`, *optional*): Other defaults than the dataclass's.

    Raises:
        [`InputError`]: If something is unknown or of the wrong type.
    """
    parser = OneLineParser(
        config_class,
        prog=prog,
        description=description,
        formatter_class=lambda prog: HelpFormatter(prog, max_help_position=32, width=100),
    )
    parser.add_argument("--config", metavar="FILE.yaml", help="Options as 'option: value' lines; typed ones win.")
    if defaults:
        parser.set_defaults(**defaults)
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    early.add_argument("--config", action="append")
    try:
        files = early.parse_known_args(argv)[0].config or []
    except argparse.ArgumentError:
        raise InputError("--config needs the path of a YAML file") from None
    if len(files) > 1:
        raise InputError(f"--config is given {len(files)} times: give one file")
    if files and not {"-h", "--help"} & set(argv):
        flags = flags_of_file(files[0], prog.split()[-1], SECTIONS, parser.options())
        argv = without_replaced_data(flags, argv) + argv
    values = vars(parser.parse_args(argv))
    values.pop("config")
    return config_class(**values)


def split_target(argv: list[str]) -> tuple[str | None, list[str]]:
    """The folder or model that comes before a command's options, and the options."""
    return (settle_path(argv[0], "DIR"), argv[1:]) if argv and not argv[0].startswith("-") else (None, argv)


def split_targets(argv: list[str]) -> tuple[list[str], list[str]]:
    """The folders or models that come before a command's options, and the options."""
    count = next((k for k, word in enumerate(argv) if word.startswith("-")), len(argv))
    return [settle_path(word, "DIR") for word in argv[:count]], argv[count:]


def run(function) -> int:
    """Run a command and turn what it raises into an exit status, see `progdistill --help`."""
    with lasting_output():
        try:
            return function() or 0
        except (InputError, StoppedBySignal, PublishError, KeyboardInterrupt, OSError, FloatingPointError) as error:
            if isinstance(error, OSError) and not (isinstance(error, DiskError) or error.errno in OF_THE_SYSTEM):
                raise
            text, status = last_words(error)
            print(f"progdistill: {' '.join(text.split())}", file=sys.stderr)
            return status


def last_words(error: BaseException) -> tuple[str, int]:
    """What is said at the end of a command that did not get to its own, and the exit status."""
    match error:
        case InputError():
            return f"error: {error}", 2
        case StoppedBySignal():
            return f"stopped by {error}; the same command goes on from here", 128 + error.signum
        case PublishError():
            return str(error), 3
        case KeyboardInterrupt():
            return "interrupted", 130
        case DiskError():
            return f"stopped: {error}; what was finished before is whole", 1
        case OSError():
            place = f"{error.filename}: " if error.filename else ""
            return f"stopped: {place}{error.strerror}", 1
        case _:
            return f"stopped: {error}", 1
