"""Tensors that are costly to make, kept by the content that they were made from."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from huggingface_hub.constants import HF_HOME
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..disk import replace_file, say_once
from ..errors import DiskError


def content_key(*parts) -> str:
    """A name made of tensors and texts, which changes when any of them does."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        if torch.is_tensor(part):
            digest.update(f"{part.dtype}{tuple(part.shape)}".encode())
            digest.update(part.contiguous().numpy().tobytes())
        else:
            digest.update(f"{part}\0".encode())
    return digest.hexdigest()


def stored(key: str, folder: str | None = None) -> dict[str, torch.Tensor] | None:
    """What the cache holds under a key, or `None`."""
    try:
        return load_file(path_of(key, folder))
    except (OSError, SafetensorError):
        # Not there, or half written by a machine that stopped.
        return None


def store(key: str, tensors: dict[str, torch.Tensor], folder: str | None = None):
    """Keep tensors under a key. A cache that cannot be written only costs time."""
    path = path_of(key, folder)
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    try:
        if str(path).startswith("~"):
            # What the libraries make of a home that there is not: a folder of that name in the working directory.
            raise DiskError(f"{path.parent} could not be written: there is no home folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, lambda temporary: save_file(tensors, temporary))
    except OSError as error:
        reason = str(error) if isinstance(error, DiskError) else error.strerror
        say_once("cache", f"nothing is kept in the cache {path.parent} ({reason}): give a folder by --cache_dir")


def path_of(key: str, folder: str | None) -> Path:
    """The file of a key. Default folder: `progdistill` in `HF_HOME`."""
    return Path(folder or Path(HF_HOME) / "progdistill") / f"{key}.safetensors"


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
