"""Images that are seen once, one part after the other, and named by their content as they pass."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch

from .cache import update_digest


# Real images that are decoded at once.
PART = 100
# Stands in a key for all images of a data set.
ALL_IMAGES = object()


def as_bytes(images: torch.Tensor) -> torch.Tensor:
    """Images in [0, 1] as they are saved: 8 bits a value. It is these that are measured."""
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)


def parts_of(data, size: int = PART) -> Iterator[torch.Tensor]:
    """
    All images of a data set in their order, `size` at a time.

    Args:
        data ([`ImageData`]): The images, whether they are in memory or decoded when they are asked for.
        size (`int`, defaults to 100): Images of a part; the last one may have fewer.

    Returns:
        `Iterator[torch.Tensor]`: `uint8`, of shape `(size, channels, height, width)`.
    """
    for first in range(0, len(data), size):
        yield data.__getitems__(list(range(first, min(first + size, len(data)))))[0]


def content_keys(data, *keys: tuple) -> list[str]:
    """
    Names as [`content_key`] makes them of tensors and texts, with [`ALL_IMAGES`] where all images of a data set stand
    as if they were one tensor. The images pass by once, whatever the number of names.

    Args:
        data ([`ImageData`]): The images.
        keys (`tuple`): What each name is made of.
    """
    digests = [hashlib.blake2b(digest_size=16) for _ in keys]
    for digest, parts in zip(digests, keys):
        update_digest(digest, parts[: parts.index(ALL_IMAGES)])
    for number, images in enumerate(parts_of(data)):
        if number == 0:
            shape = (len(data), *images.shape[1:])
            for digest in digests:
                digest.update(f"{images.dtype}{shape}".encode())
        content = images.contiguous().numpy()
        for digest in digests:
            digest.update(content)
    for digest, parts in zip(digests, keys):
        update_digest(digest, parts[parts.index(ALL_IMAGES) + 1 :])
    return [digest.hexdigest() for digest in digests]
