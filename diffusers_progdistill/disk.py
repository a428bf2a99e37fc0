"""Files and folders that are there whole or not at all, also when the machine stops in the middle."""

import contextlib
import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from .errors import DiskError


# Bytes: a library's failed write on a disk with less free is put down to that.
ALMOST_FULL = 1 << 20


@contextlib.contextmanager
def writing(path: Path, temporary: Path | None = None):
    """
    Turn what the libraries raise on a full disk or a read-only folder into one line that names the file. What is half
    written under a temporary name is removed: it would only keep the disk full.
    """
    try:
        yield
    except BaseException as error:
        reason = system_reason(error, path) if isinstance(error, Exception) else None
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True) if temporary.is_dir() else temporary.unlink(missing_ok=True)
        if reason is None or isinstance(error, DiskError):
            raise
        raise DiskError(f"{path} could not be written: {reason}") from error


def system_reason(error: BaseException, path: Path) -> str | None:
    """Why a write failed, if that is what an exception says. torch and safetensors have their own words for it."""
    text = " ".join(str(error).split())
    cause = error
    while cause is not None:
        if isinstance(cause, OSError):
            return cause.strerror or str(cause)
        cause = cause.__cause__ or cause.__context__
    if number := re.search(r"os error (\d+)", text):
        return os.strerror(int(number[1]))
    is_writer = type(error).__name__ == "SafetensorError" or "inline_container" in text or "PytorchStream" in text
    if not is_writer:
        return None
    is_full = shutil.disk_usage(path.parent).free < ALMOST_FULL
    return os.strerror(errno.ENOSPC) if is_full else text[:150]


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
    with writing(path, temporary):
        write(temporary)
        os.replace(temporary, path)


def replace_folder(folder: Path, write: Callable[[Path], None]):
    """Have `write` fill a folder under a temporary name, flush it, then put it in the place of the old one."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    with writing(folder, temporary):
        shutil.rmtree(temporary, ignore_errors=True)
        write(temporary)
        flush_tree(temporary)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(temporary, folder)
        flush(folder.parent)
