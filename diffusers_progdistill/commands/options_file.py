"""`--config FILE.yaml`: lines of `option: value` as the words that a person would have typed."""

import argparse
import codecs
import difflib
from pathlib import Path

import yaml

from ..errors import InputError
from ..paths import settle_path


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


def flags_of_file(given: str, command: str, sections: tuple[str, ...], known: dict[str, argparse.Action]) -> list[str]:
    """
    The flags that a file of `option: value` lines stands for. A file may serve several commands: options that only one
    of them takes stand in a section of its name, such as `distill:`.

    Args:
        given (`str`): The path of the file.
        command (`str`): The command, whose section is read.
        sections (`tuple[str, ...]`): The names that a section may have.
        known (`dict[str, argparse.Action]`): Every option by its name.

    Raises:
        [`InputError`]: If the file cannot be read, or holds something that cannot have been meant.
    """
    path = settle_path(given, "--config")
    where = f"--config {path}"
    tree = _compose(_text_of(path, where), where)
    try:
        found = _lines_of(tree, where, sections)
        inner = {
            name: _lines_of(node, f"{place}: {name}", ()) for name, (node, place) in found.items() if name in sections
        }
    except RecursionError as error:
        raise InputError(f"{where}: a << leads back to itself") from error
    # What stands in the section of the command wins.
    lines = {name: line for name, line in found.items() if name not in sections} | inner.get(command, {})
    return [flag for key, (node, place) in lines.items() for flag in _flags_of(key, node, place, known)]


def _text_of(path: str, where: str) -> str:
    """The text of a file, in whatever encoding an editor marks it with."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{where} cannot be read: {error.strerror}") from error
    encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(f"{where}, line {line}: this is not UTF-8 text; save the file as UTF-8") from error


def _compose(text: str, where: str) -> yaml.Node | None:
    """The tree of a YAML file. Its words are not taken for numbers or truth values yet: only the options know."""
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}, line {mark.line + 1}" if mark else where
        raise InputError(f"{place}: {_reason(error, text, mark)}") from error
    except (RecursionError, ValueError) as error:
        raise InputError(f"{where} is not a file of 'option: value' lines") from error


def _reason(error: yaml.YAMLError, text: str, mark) -> str:
    """What is wrong with a YAML file, in a person's words."""
    lines = text.splitlines()
    line = lines[mark.line] if mark and mark.line < len(lines) else ""
    problem = getattr(error, "problem", None) or ""
    if "\t" in line[: len(line) - len(line.lstrip())] or "'\\t'" in problem:
        return "there is a tab where YAML takes spaces only"
    if "undefined alias" in problem:
        return f"{line.split('*')[-1].strip()} is not defined by an & before"
    if "but found another document" in problem:
        return "a second document begins here; keep one, without ---"
    if isinstance(error, yaml.reader.ReaderError):
        return "it holds characters that no text has; give a YAML file"
    if "mapping values are not allowed" in problem:
        return "there are two colons in the line; put quotes around a value that has one"
    return "this is not YAML; it must hold lines of 'option: value'"


def _lines_of(node: yaml.Node | None, where: str, sections: tuple[str, ...]) -> dict[str, tuple[yaml.Node, str]]:
    """The keys of a mapping with their values and where they stand."""
    if node is None or _is_empty(node):
        return {}
    if not isinstance(node, yaml.MappingNode):
        raise InputError(f"{where} must hold lines of 'option: value'")
    file = where.split(", line ")[0].split(": ")[0]
    found: dict[str, tuple[yaml.Node, str]] = {}
    merged: dict[str, tuple[yaml.Node, str]] = {}
    for key, value in node.value:
        place = f"{file}, line {key.start_mark.line + 1}"
        if key.tag == "tag:yaml.org,2002:merge":
            for part in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                merged = _lines_of(part, place, ()) | merged
            continue
        if not isinstance(key, yaml.ScalarNode):
            raise InputError(f"{place}: an option's name must be a word")
        name = _name_of(key.value, sections)
        if name in found:
            raise InputError(f"{place}: {name} stands there already, in {found[name][1].split(', ')[-1]}; keep one")
        found[name] = (value, place)
    return merged | found


def _name_of(key: str, sections: tuple[str, ...]) -> str:
    """An option's or section's name, however it was written."""
    name = key.strip().removeprefix("--")
    return name.replace("_", "-") if name.replace("_", "-") in sections else name.replace("-", "_")


def _is_empty(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def _flags_of(key: str, node: yaml.Node, place: str, known: dict[str, argparse.Action]) -> list[str]:
    """The flag of one line; none where it has no value."""
    action = known.get(key) if key != "config" else None
    if action is None:
        raise InputError(f"{place}: unknown option {key!r}{_advice(key, known)}")
    is_switch = action.nargs in ("?", 0)
    if _is_empty(node):
        if is_switch and not node.value:
            raise InputError(f"{place}: {key} has no value; it must be true or false")
        # Where nothing has a word of its own, it was meant; elsewhere the option is not given.
        return [f"--{key}=none"] if key == "report_to" and node.value else []
    text = _text_of_value(key, node, place)
    try:
        if action.type not in (None, str):
            value = action.type(text)
            if action.nargs == 0:
                # `--no_x`, which takes no value on a command line.
                return [f"--{key}"] if value else [f"--{key.removeprefix('no_')}=true"]
            text = str(value)
    except argparse.ArgumentTypeError as error:
        raise InputError(f"{place}: {key} {error}") from error
    return [f"--{key}={text}"]


def _text_of_value(key: str, node: yaml.Node, place: str) -> str:
    """A value as it was written, or a list as words with commas."""
    if isinstance(node, yaml.SequenceNode) and key in LISTS:
        if all(isinstance(item, yaml.ScalarNode) for item in node.value):
            return ",".join(item.value.strip() for item in node.value)
    if not isinstance(node, yaml.ScalarNode):
        kind = "list" if isinstance(node, yaml.SequenceNode) else "mapping"
        raise InputError(f"{place}: {key} must be a single value, not a {kind}")
    if not node.tag.startswith("tag:yaml.org,2002:"):
        raise InputError(f"{place}: {key} has the tag {node.tag}; it must be a plain value")
    return node.value.strip()


def _advice(key: str, known: dict[str, argparse.Action]) -> str:
    if key in OF_ACCELERATE:
        return "; a file of `accelerate config` is given as `accelerate launch --config_file FILE`"
    near = difflib.get_close_matches(key.lower(), [k for k in known if "-" not in k], 1)
    return f"; did you mean {near[0]}?" if near else ""
