"""Tensors that are costly to make, kept by the content that they were made from."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from huggingface_hub.constants import HF_HOME
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..disk import replace_file


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


def cached(
    key: str, make: Callable[[], dict[str, torch.Tensor]], folder: str | None = None
) -> dict[str, torch.Tensor]:
    """
    What `make` returns, from the cache if it was made before.

    Args:
        key (`str`): See [`content_key`].
        make (`Callable`): Makes the tensors.
        folder (`str`, *optional*): Where the cache lies. Default: `progdistill` in `HF_HOME`.
    """
    path = Path(folder or Path(HF_HOME) / "progdistill") / f"{key}.safetensors"
    try:
        return load_file(path)
    except (OSError, SafetensorError):
        # Not there, or half written by a machine that stopped.
        pass
    tensors = {name: tensor.contiguous() for name, tensor in make().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, lambda temporary: save_file(tensors, temporary))
    return tensors
