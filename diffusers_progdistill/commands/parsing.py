"""Command lines and YAML files into dataclasses of options: a word means the same in both, errors are one line."""

import argparse
import re
from dataclasses import Field, fields
from typing import Any, NoReturn

from ..errors import InputError
from ..options import list_choices
from ..paths import settle_path
from .options_file import OptionsFile
from .words import find_reader, read_truth, suggest


# Options that name a data set, of which there can only be one.
DATA_SETS = {"dataset_name", "train_data_dir"}


class OptionParser(argparse.ArgumentParser):
    """A parser without abbreviations that says what is wrong in one line, and returns what was typed only."""

    def __init__(self, config_class: type, prog: str, description: str) -> None:
        super().__init__(
            prog,
            description=description,
            formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32, width=100),
            argument_default=argparse.SUPPRESS,
            allow_abbrev=False,
        )
        self.readers = {one.name: find_reader(one.type) for one in fields(config_class)}
        for one in fields(config_class):
            self._add_option(one)
        help = "Options as 'option: value' lines; typed ones win."
        self.add_argument("--config", action="append", metavar="FILE.yaml", help=help)

    def _add_option(self, one: Field) -> None:
        choices, reader = list_choices(one.type), self.readers[one.name]
        default = "" if one.default is None else f" (default: {one.default})"
        self.add_argument(
            f"--{one.name}",
            type=reader,
            metavar=f"{{{','.join(choices)}}}" if choices else None,
            help=one.metadata["help"].replace("%", "%%") + default,
            **({"nargs": "?", "const": True} if reader is read_truth else {}),
        )
        if reader is read_truth and one.default is not False:
            self.add_argument(f"--no_{one.name}", dest=one.name, action="store_false", help=f"Not --{one.name}.")

    def error(self, message: str) -> NoReturn:
        if unknown := re.match(r"unrecognized arguments: (\S+)", message):
            name = unknown[1].split("=")[0]
            if not name.startswith("-"):
                raise InputError(f"unexpected word {name!r}: options begin with --")
            raise InputError(f"unknown option {name}{suggest(name, [f'--{k}' for k in (*self.readers, 'config')])}")
        if message == "argument --config: expected one argument":
            raise InputError("--config needs the path of a YAML file")
        # argparse says `argument --seed: ...`.
        raise InputError(re.sub(r"^argument (--\w+):", r"\1", message))


def parse(config_class: type, argv: list[str], prog: str, description: str) -> Any:
    """The options in the words after a command's name; typed ones win over those of `--config FILE.yaml`."""
    parser = OptionParser(config_class, prog, description)
    typed = vars(parser.parse_args([_spell(word) for word in argv]))
    files = typed.pop("config", [])
    if len(files) > 1:
        raise InputError(f"--config is given {len(files)} times: give one file")
    read = OptionsFile(files[0], parser.readers).read(prog.split()[-1].replace("-", "_")) if files else {}
    if typed.keys() & DATA_SETS:
        read = {name: value for name, value in read.items() if name not in {*DATA_SETS, "dataset_config_name"}}
    return config_class(**{**read, **typed})


def _spell(word: str) -> str:
    """An option's name with underscores, however it was typed."""
    name, equals, value = word.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value if name.startswith("--") else word


def split_target(argv: list[str]) -> tuple[str | None, list[str]]:
    """The folder or model that comes before a command's options, and the options."""
    return (settle_path(argv[0], "DIR"), argv[1:]) if argv and not argv[0].startswith("-") else (None, argv)


def split_targets(argv: list[str]) -> tuple[list[str], list[str]]:
    """The folders or models that come before a command's options, and the options."""
    count = next((k for k, word in enumerate(argv) if word.startswith("-")), len(argv))
    return [settle_path(word, "DIR") for word in argv[:count]], argv[count:]
