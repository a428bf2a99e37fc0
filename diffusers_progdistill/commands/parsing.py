"""Command lines and YAML files into config dataclasses: one parser checks both, errors are one line."""

import argparse
import difflib
import sys
from dataclasses import fields
from pathlib import Path
from typing import NoReturn

import yaml
from transformers.hf_argparser import HfArgumentParser

from ..errors import DiskError, InputError, PublishError, StoppedBySignal


# Parts of a YAML file that are for one command.
SECTIONS = ("train-teacher", "adopt", "distill")


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
            if one.metadata.get("const") is True:
                names = f"--no_{one.name}", f"--no-{one.name.replace('_', '-')}"
                self.add_argument(
                    *names, dest=one.name, action="store_false", default=None, help=f"Set --{one.name} to false."
                )

    def error(self, message) -> NoReturn:
        raise InputError(message)

    def options(self) -> dict[str, argparse.Action]:
        """Every long option without its dashes."""
        return {o[2:]: a for a in self._actions for o in a.option_strings if o.startswith("--") and o != "--help"}


def flags_of_yaml(path: str, parser: OneLineParser) -> list[str]:
    """
    The flags that a YAML file of `option: value` lines stands for. A file may serve several commands: options that
    only one of them takes stand in a section of its name, such as `distill:`.

    Raises:
        [`InputError`]: If the file cannot be read, or holds an option that the parser does not know, a nested value,
            or a number or truth value where the option takes another type.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--config {path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise InputError(f"--config {path} is not YAML{f' at line {mark.line + 1}' if mark else ''}") from error
    if content is None:
        return []
    parts = (
        [content, *(content[k] or {} for k in SECTIONS if k in content)] if isinstance(content, dict) else [content]
    )
    if not all(isinstance(part, dict) for part in parts):
        raise InputError(f"--config {path} must hold lines of 'option: value'")
    section = content.get(parser.prog.split()[-1])
    lines = {k: v for k, v in content.items() if k not in SECTIONS}
    return _flags_of({**lines, **(section or {})}, path, parser.options())


def _flags_of(lines: dict, path: str, known: dict[str, argparse.Action]) -> list[str]:
    flags = []
    for key, value in lines.items():
        action = known.get(key) if isinstance(key, str) and key != "config" else None
        if action is None:
            near = difflib.get_close_matches(str(key), known, 1)
            raise InputError(
                f"--config {path}: unknown option {key!r}" + (f"; did you mean {near[0]}?" if near else "")
            )
        if isinstance(value, (dict, list)):
            raise InputError(f"--config {path}: {key} must be a single value, not a {type(value).__name__}")
        if value is None:
            continue
        is_switch = action.nargs in ("?", 0)
        if isinstance(value, bool) != is_switch:
            wanted = "true or false" if is_switch else "a value that is not true or false"
            raise InputError(f"--config {path}: {key} must be {wanted}, not {value!r}")
        flags.append(f"--{key}={value}")
    return flags


def without_replaced_data(flags: list[str], typed: list[str]) -> list[str]:
    """The flags of a file without its data set, if another one is typed: there can only be one."""
    sources = ("--dataset_name", "--train_data_dir", "--dataset_config_name")
    if not any(word.split("=")[0] in sources[:2] for word in typed):
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
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--config")
    try:
        path = early.parse_known_args(argv)[0].config
    except SystemExit:
        raise InputError("--config needs the path of a YAML file") from None
    if path is not None and not {"-h", "--help"} & set(argv):
        argv = without_replaced_data(flags_of_yaml(path, parser), argv) + argv
    values = vars(parser.parse_args(argv))
    values.pop("config")
    return config_class(**values)


def split_target(argv: list[str]) -> tuple[str | None, list[str]]:
    """The folder or model that comes before a command's options, and the options."""
    return (argv[0], argv[1:]) if argv and not argv[0].startswith("-") else (None, argv)


def split_targets(argv: list[str]) -> tuple[list[str], list[str]]:
    """The folders or models that come before a command's options, and the options."""
    count = next((k for k, word in enumerate(argv) if word.startswith("-")), len(argv))
    return argv[:count], argv[count:]


def run(function) -> int:
    """Run a command and turn what it raises into an exit status, see `progdistill --help`."""
    try:
        return function() or 0
    except InputError as error:
        print(f"progdistill: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except StoppedBySignal as stopped:
        print(f"progdistill: stopped by {stopped}; the same command goes on from here", file=sys.stderr)
        return 128 + stopped.signum
    except PublishError as error:
        print(f"progdistill: {error}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        print("progdistill: interrupted", file=sys.stderr)
        return 130
    except DiskError as error:
        print(f"progdistill: stopped: {error}; what was finished before is whole", file=sys.stderr)
        return 1
    except FloatingPointError as error:
        print(f"progdistill: stopped: {error}", file=sys.stderr)
        return 1
