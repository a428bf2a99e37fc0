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


# Ends the names of files that are not finished.
TEMPORARY = ".tmp"
DAY = 24 * 3600
# What stands for a cache that cannot be written, until the process ends.
_instead: dict[Path, tempfile.TemporaryDirectory] = {}


def cached(
    key: str, make: Callable[[], dict[str, torch.Tensor]], folder: str | None = None
) -> dict[str, torch.Tensor]:
    """
    What `make` returns, from the cache if it was made before under this [`content_key`]. Where the cache, by default
    `progdistill` in `HF_HOME`, cannot be written, a temporary folder takes its place until the process ends.
    """
    place, name = Path(folder or Path(HF_HOME) / "progdistill"), f"{key}.safetensors"
    for known in [place, *([Path(_instead[place].name)] if place in _instead else [])]:
        # Not there, or half written by a machine that stopped.
        with contextlib.suppress(OSError, SafetensorError):
            return load_file(known / name)
    tensors = {key: tensor.contiguous() for key, tensor in make().items()}
    if place not in _instead:
        try:
            _write_into(place, name, tensors)
            return tensors
        except DiskError as error:
            say_once("cache", f"nothing is kept in the cache ({error}): give a folder by --cache_dir")
            _instead[place] = tempfile.TemporaryDirectory(prefix="progdistill-")
    # Without any place to keep it, it only takes longer.
    with contextlib.suppress(DiskError):
        _write_into(Path(_instead[place].name), name, tensors)
    return tensors


def _write_into(place: Path, name: str, tensors: dict[str, torch.Tensor]) -> None:
    """Write under a name of this process's own, since another may make the same at the same time, then rename."""
    temporary = place / f".{name}.{uuid.uuid4().hex}{TEMPORARY}"
    if str(place).startswith("~"):
        # What the libraries make of a home that there is not: a folder of that name in the working directory.
        raise DiskError(f"{place} could not be written: there is no home folder")
    with writing(place, temporary):
        place.mkdir(parents=True, exist_ok=True)
        # A process that was killed left its own behind.
        for left in place.glob(f".*{TEMPORARY}"):
            with contextlib.suppress(OSError):
                if time.time() - left.stat().st_mtime > DAY:
                    left.unlink()
        save_file(tensors, temporary)
        put_in_place(temporary, place / name)
