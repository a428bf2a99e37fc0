"""Files and folders that are there whole or not at all, also when the machine stops in the middle."""

import contextlib
import errno
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from .errors import DiskError


logger = logging.getLogger(__name__)

# What file systems say to an operation that they do not have: network shares, mounts of object stores, containers.
NOT_SUPPORTED = {
    *(errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOTTY, errno.ENOLCK, errno.EXDEV),
    *(errno.EPERM, errno.EACCES, errno.EBADF, errno.EISDIR, errno.EBUSY, errno.EMLINK, errno.ENODEV),
}
# They say that a folder is whole, and are copied last.
LAST_FILES = ("model_index.json", "manifest.json")
_said: set[str] = set()


def say_once(key: str, text: str) -> None:
    """A notice that is given once in a process, however often its cause comes up."""
    if key not in _said:
        _said.add(key)
        logger.warning("%s", text)


@contextlib.contextmanager
def writing(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """
    Turn what the libraries raise on a full disk or a read-only folder into one line that names the file. What is half
    written under a temporary name is removed: it would only keep the disk full.
    """
    try:
        yield
    except BaseException as error:
        reason = find_system_reason(error) if isinstance(error, Exception) else None
        if temporary is not None:
            remove(temporary)
        if reason is None or isinstance(error, DiskError):
            raise
        raise DiskError(f"{path} could not be written: {reason}") from error


def find_system_reason(error: BaseException | None) -> str | None:
    """Why a write failed, in the system's words, if that is what an exception was raised for."""
    while error is not None:
        if isinstance(error, OSError):
            return error.strerror or str(error)
        # safetensors is written in Rust, and cites the system's number.
        if number := re.search(r"os error (\d+)", str(error)):
            return os.strerror(int(number[1]))
        error = error.__cause__ or error.__context__
    return None


def flush(path: Path) -> None:
    """Make a file's content, or a folder's list of names, survive a power cut; a share that cannot says so once."""
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in NOT_SUPPORTED or not path.is_dir():
            raise
        say_once(
            "flush",
            f"the file system of {path} cannot flush folders ({error.strerror}): the run goes on, but a power cut may"
            " lose the newest files",
        )


def flush_tree(folder: Path) -> None:
    """[`flush`] every file and folder below, and the folder itself."""
    for path in sorted(folder.rglob("*")):
        flush(path)
    flush(folder)


def write_json(path: Path, content: dict) -> None:
    """Write a JSON file in one piece: to a temporary neighbour, flushed, then renamed over the old one."""

    def write(temporary: Path) -> None:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        flush(temporary)

    replace_file(path, write)


def replace_file(path: Path, write: Callable[[Path], None]) -> None:
    """Have `write` make a file under a temporary name with the same suffix, then rename it over the old one."""
    temporary = path.with_name(f".{path.name}.tmp{path.suffix}")
    with writing(path, temporary):
        write(temporary)
        put_in_place(temporary, path)


def replace_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Have `write` fill a folder under a temporary name, flush it, and put it in the place of the old one."""
    temporary, old = folder.with_name(f".{folder.name}.tmp"), folder.with_name(f".{folder.name}.old.tmp")
    with writing(folder, temporary):
        remove(temporary)
        write(temporary)
        flush_tree(temporary)
        remove(old)
        if folder.exists():
            # It is moved aside first: on shares, files of it that are still open cannot be deleted yet.
            try:
                os.replace(folder, old)
            except OSError:
                shutil.rmtree(folder)
        try:
            put_in_place(temporary, folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.replace(old, folder)
            raise
        flush(folder.parent)
    remove(old)


def put_in_place(temporary: Path, final: Path) -> None:
    """Rename what was written to its name; where the file system cannot rename, copy it there and say so."""
    try:
        os.replace(temporary, final)
    except OSError as error:
        if error.errno not in NOT_SUPPORTED:
            raise
        copy(temporary, final)
        say_once(
            "rename",
            f"the file system of {final} cannot rename ({error.strerror}): files are copied into place, and a crash"
            " in the middle may leave one half written",
        )
        remove(temporary)


def copy(source: Path, target: Path) -> None:
    """Copy a file, or a folder file by file, and flush the content; no times, no rights."""
    files = [path for path in source.rglob("*") if path.is_file()] if source.is_dir() else [source]
    for path in sorted(files, key=lambda path: path.name in LAST_FILES):
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
        flush(place)


def remove(path: Path) -> None:
    """Delete a file or folder that may be there, as far as that goes."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
