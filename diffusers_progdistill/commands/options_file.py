"""`--config FILE.yaml`: lines of `option: value`, read as if a person had typed them."""

import argparse
import codecs
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from ..errors import InputError
from ..paths import settle_path
from .main import COMMANDS
from .words import read_truth, suggest


# A file may serve several commands: options that only one of them takes stand in a section of its name.
SECTIONS = {name.replace("-", "_") for name in COMMANDS}
# Options of which a list is meant as words with commas.
LISTS = {"report_to", "feature_extractor", "samplers", "steps", "seeds", "class_labels"}
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# Keys that only the files of `accelerate config` have.
OF_ACCELERATE = {"compute_environment", "distributed_type", "num_processes", "num_machines"}
# What PyYAML's words mean.
REASONS = {
    r"'\\t'": "there is a tab where YAML takes spaces only",
    "undefined alias '(.*)'": r"\1 is not defined by an & before",
    "but found another document": "a second document begins here; keep one, without ---",
    "special characters": "it holds characters that no text has; give a YAML file",
    "mapping values are not allowed": "there are two colons in the line; put quotes around a value that has one",
    "": "this is not YAML; it must hold lines of 'option: value'",
}
# A value, and where it stands.
Line = tuple[yaml.Node, str]


class OptionsFile:
    """A YAML file of options; `readers` read the words of each."""

    def __init__(self, given: str, readers: dict[str, Callable[[str], Any]]) -> None:
        self.path = Path(settle_path(given, "--config"))
        self.where, self.readers = f"--config {self.path}", readers

    def read(self, command: str) -> dict[str, Any]:
        """The values for a command; what stands in its section wins."""
        tree = self._compose(self._read_text())
        try:
            lines = self._list_lines(tree, self.where)
            inner = self._list_lines(*lines[command]) if command in lines else {}
        except RecursionError as error:
            raise InputError(f"{self.where}: a << leads back to itself") from error
        values = {}
        for name, (node, place) in ({k: v for k, v in lines.items() if k not in SECTIONS} | inner).items():
            values |= self._read_line(name, node, place)
        return values

    def _read_text(self) -> str:
        """The text, in whatever encoding an editor marks it with."""
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise InputError(f"{self.where} cannot be read: {error.strerror}") from error
        encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if content.startswith(mark)), "utf-8")
        try:
            return content.decode(encoding)
        except UnicodeDecodeError as error:
            line = content[: error.start].count(b"\n") + 1
            raise InputError(f"{self.where}, line {line}: this is not UTF-8 text; save the file as UTF-8") from error

    def _compose(self, text: str) -> yaml.Node | None:
        """The tree. Its words are not taken for numbers or truth values yet: only the options know."""
        try:
            return yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            place = f"{self.where}, line {mark.line + 1}" if mark else self.where
            line = text.splitlines()[mark.line : mark.line + 1] if mark else []
            # PyYAML blames the word after a tab that indents a line.
            is_indented = any("\t" in words[: len(words) - len(words.lstrip())] for words in line)
            told = "'\\t'" if is_indented else getattr(error, "problem", None) or str(error)
            match, reason = next((m, reason) for words, reason in REASONS.items() if (m := re.search(words, told)))
            raise InputError(f"{place}: {match.expand(reason)}") from error
        except (RecursionError, ValueError) as error:
            raise InputError(f"{self.where} is not a file of 'option: value' lines") from error

    def _list_lines(self, node: yaml.Node | None, place: str) -> dict[str, Line]:
        """The keys of a mapping, with what `<<` merges into it."""
        if node is None or _is_empty(node):
            return {}
        if not isinstance(node, yaml.MappingNode):
            raise InputError(f"{place} must hold lines of 'option: value'")
        found, merged = {}, {}
        for key, value in node.value:
            place = f"{self.where}, line {key.start_mark.line + 1}"
            if key.tag == "tag:yaml.org,2002:merge":
                for part in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    merged = self._list_lines(part, place) | merged
                continue
            if not isinstance(key, yaml.ScalarNode):
                raise InputError(f"{place}: an option's name must be a word")
            name = key.value.strip().removeprefix("--").replace("-", "_")
            if name in found:
                raise InputError(
                    f"{place}: {name} stands there already, in {found[name][1].split(', ')[-1]}; keep one"
                )
            found[name] = (value, place)
        return merged | found

    def _read_line(self, name: str, node: yaml.Node, place: str) -> dict[str, Any]:
        """The option of a line and its value; nothing where it is left open."""
        positive = name.removeprefix("no_")
        is_negated = name not in self.readers and self.readers.get(positive) is read_truth
        reader = read_truth if is_negated else self.readers.get(name)
        if reader is None:
            is_other = name in OF_ACCELERATE
            advice = "; a file of `accelerate config` is given as `accelerate launch --config_file FILE`"
            raise InputError(f"{place}: unknown option {name!r}{advice if is_other else suggest(name, self.readers)}")
        if _is_empty(node):
            if reader is read_truth and not node.value:
                raise InputError(f"{place}: {name} has no value; it must be true or false")
            # Where nothing has a word of its own, it was meant.
            return {"report_to": "none"} if name == "report_to" and node.value else {}
        try:
            value = reader(_read_words(name, node, place))
        except argparse.ArgumentTypeError as error:
            raise InputError(f"{place}: {name} {error}") from error
        return {positive: not value} if is_negated else {name: value}


def _is_empty(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def _read_words(name: str, node: yaml.Node, place: str) -> str:
    """A value as it was written, or a list as words with commas."""
    if isinstance(node, yaml.SequenceNode) and name in LISTS:
        if all(isinstance(item, yaml.ScalarNode) for item in node.value):
            return ",".join(item.value.strip() for item in node.value)
    if not isinstance(node, yaml.ScalarNode):
        kind = "list" if isinstance(node, yaml.SequenceNode) else "mapping"
        raise InputError(f"{place}: {name} must be a single value, not a {kind}")
    if not node.tag.startswith("tag:yaml.org,2002:"):
        raise InputError(f"{place}: {name} has the tag {node.tag}; it must be a plain value")
    return node.value.strip()
