"""Tensors that are costly to make, kept by the content that they were made from."""

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
from ..identity import content_key, update_digest


__all__ = ["cached", "content_key", "store", "stored", "update_digest"]

# Ends the names of files that are not finished.
TEMPORARY = ".tmp"
DAY = 24 * 3600
# What stands for a cache that cannot be written, until the process ends.
_instead: dict[Path, tempfile.TemporaryDirectory] = {}


def stored(key: str, folder: str | None = None) -> dict[str, torch.Tensor] | None:
    """What the cache holds under a key, or `None`."""
    for path in paths_of(key, folder):
        # Not there, or half written by a machine that stopped.
        with contextlib.suppress(OSError, SafetensorError):
            return load_file(path)
    return None


def store(key: str, tensors: dict[str, torch.Tensor], folder: str | None = None):
    """Keep tensors under a key. A cache that cannot be written only costs time."""
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with contextlib.suppress(DiskError):
        write_entry(key, lambda temporary: _save(tensors, temporary), folder)


def _save(tensors: dict[str, torch.Tensor], path: Path):
    with writing(path):
        save_file(tensors, path)


def write_entry(key: str, write: Callable[[Path], None], folder: str | None = None) -> Path:
    """
    Have `write` make the file of a key under a temporary name, then rename it. The name is this process's own, since
    another may make the same at the same time; one that was killed left its own behind, which is removed a day later.

    Args:
        key (`str`): See [`content_key`].
        write (`Callable`): Writes the file of the path that it is given.
        folder (`str`, *optional*): Where the cache lies. If it cannot be written, that is said once, and what would
            lie in it is kept in a temporary folder until the process ends.

    Returns:
        `Path`: The file.
    """
    place = folder_of(folder)
    if place not in _instead:
        try:
            return _write_into(place, key, write)
        except DiskError as error:
            if not error.args[0].startswith(str(place)):
                raise
            say_once("cache", f"nothing is kept in the cache ({error}): give a folder by --cache_dir")
            _instead[place] = tempfile.TemporaryDirectory(prefix="progdistill-")
    return _write_into(Path(_instead[place].name), key, write)


def _write_into(place: Path, key: str, write: Callable[[Path], None]) -> Path:
    path, temporary = place / f"{key}.safetensors", place / f".{key}.{uuid.uuid4().hex}{TEMPORARY}"
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


def folder_of(folder: str | None) -> Path:
    """Where the cache lies. Default: `progdistill` in `HF_HOME`."""
    return Path(folder or Path(HF_HOME) / "progdistill")


def paths_of(key: str, folder: str | None) -> list[Path]:
    """Where the file of a key may be: in the cache, or in what stands for it."""
    place = folder_of(folder)
    folders = [place, *([Path(_instead[place].name)] if place in _instead else [])]
    return [folder / f"{key}.safetensors" for folder in folders]


def cached(
    key: str, make: Callable[[], dict[str, torch.Tensor]], folder: str | None = None
) -> dict[str, torch.Tensor]:
    """
    What `make` returns, from the cache if it was made before.

    Args:
        key (`str`): See [`content_key`].
        make (`Callable`): Makes the tensors.
        folder (`str`, *optional*): Where the cache lies.
    """
    tensors = stored(key, folder)
    if tensors is None:
        tensors = make()
        store(key, tensors, folder)
    return tensors
