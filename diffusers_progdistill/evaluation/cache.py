"""What is costly to make, kept under names made of the content that it was made from."""

import contextlib
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import torch
from huggingface_hub.constants import HF_HOME
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..disk import put_in_place, say_once, writing
from ..errors import DiskError


# Ends the names of files that are not finished.
TEMPORARY = ".tmp"
DAY = 24 * 3600
# What stands for a cache that cannot be written, until the process ends.
_instead: dict[Path, tempfile.TemporaryDirectory] = {}


def cached(
    key: str, make: Callable[[], dict[str, torch.Tensor]], folder: str | None = None
) -> dict[str, torch.Tensor]:
    """
    What `make` returns, from the cache if it was made before. A cache that cannot be written only costs time.

    Args:
        key (`str`): See [`content_key`].
        make (`Callable`): Makes the tensors.
        folder (`str`, *optional*): Where the cache lies.
    """
    name = f"{key}.safetensors"
    for path in list_paths(name, folder):
        # Not there, or half written by a machine that stopped.
        with contextlib.suppress(OSError, SafetensorError):
            return load_file(path)
    tensors = {name: tensor.contiguous() for name, tensor in make().items()}

    def save(temporary: Path):
        with writing(temporary):
            save_file(tensors, temporary)

    with contextlib.suppress(DiskError):
        write_entry(name, save, folder)
    return tensors


def write_entry(name: str, write: Callable[[Path], None], folder: str | None = None) -> Path:
    """
    Have `write` make a file under a temporary name, then rename it. The temporary name is this process's own, since
    another may make the same at the same time; one that was killed left its own behind, which is removed a day later.

    Args:
        name (`str`): Of the file: a [`content_key`] and what it ends in.
        write (`Callable`): Writes the file of the path that it is given.
        folder (`str`, *optional*): Where the cache lies. If it cannot be written, that is said once, and what would
            lie in it is kept in a temporary folder until the process ends.

    Returns:
        `Path`: The file.
    """
    place = _find_folder(folder)
    if place not in _instead:
        try:
            return _write_into(place, name, write)
        except DiskError as error:
            if not error.args[0].startswith(str(place)):
                raise
            say_once("cache", f"nothing is kept in the cache ({error}): give a folder by --cache_dir")
            _instead[place] = tempfile.TemporaryDirectory(prefix="progdistill-")
    return _write_into(Path(_instead[place].name), name, write)


def _write_into(place: Path, name: str, write: Callable[[Path], None]) -> Path:
    path, temporary = place / name, place / f".{name}.{uuid.uuid4().hex}{TEMPORARY}"
    if str(place).startswith("~"):
        # What the libraries make of a home that there is not: a folder of that name in the working directory.
        raise DiskError(f"{place} could not be written: there is no home folder")
    with writing(place):
        place.mkdir(parents=True, exist_ok=True)
        for left in place.glob(f".*{TEMPORARY}"):
            with contextlib.suppress(OSError):
                if time.time() - left.stat().st_mtime > DAY:
                    left.unlink()
        temporary.touch()
    try:
        write(temporary)
        with writing(place):
            put_in_place(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return path


def _find_folder(folder: str | None) -> Path:
    return Path(folder or Path(HF_HOME) / "progdistill")


def list_paths(name: str, folder: str | None) -> list[Path]:
    """Where a file may be: in the cache (by default `progdistill` in `HF_HOME`), or in what stands for it."""
    place = _find_folder(folder)
    return [place / name, *([Path(_instead[place].name, name)] if place in _instead else [])]
