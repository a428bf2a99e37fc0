"""Files and folders that are there whole or not at all, also when the machine stops in the middle."""

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from .errors import DiskError


@contextlib.contextmanager
def writing(path: Path):
    """Turn what the libraries raise on a full disk or a read-only folder into one line that names the file."""
    try:
        yield
    except OSError as error:
        raise DiskError(f"{path} could not be written: {error.strerror or error}") from error
    except Exception as error:
        # torch and safetensors raise their own kinds, with the system's reason in the text.
        if type(error).__name__ != "SafetensorError" and "writ" not in str(error).lower():
            raise
        raise DiskError(f"{path} could not be written: {' '.join(str(error).split())[:200]}") from error


def flush(path: Path):
    """Make a file's content, or a folder's list of names, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flush_tree(folder: Path):
    """[`flush`] every file and folder below, and the folder itself."""
    for path in sorted(folder.rglob("*")):
        flush(path)
    flush(folder)


def write_json(path: Path, content: dict):
    """Write a JSON file in one piece: to a temporary neighbour, flushed, then renamed over the old one."""

    def write(temporary: Path):
        text = json.dumps(content, indent=2) + "\n"
        temporary.write_text(text, encoding="utf-8")
        flush(temporary)

    replace_file(path, write)


def replace_file(path: Path, write: Callable[[Path], None]):
    """Have `write` make a file under a temporary name with the same suffix, then rename it over the old one."""
    temporary = path.with_name(f".{path.name}.tmp{path.suffix}")
    with writing(path):
        write(temporary)
        os.replace(temporary, path)


def replace_folder(folder: Path, write: Callable[[Path], None]):
    """Have `write` fill a folder under a temporary name, flush it, then put it in the place of the old one."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    with writing(folder):
        shutil.rmtree(temporary, ignore_errors=True)
        write(temporary)
        flush_tree(temporary)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(temporary, folder)
        flush(folder.parent)
