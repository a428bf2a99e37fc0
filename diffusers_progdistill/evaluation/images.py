"""Images that are seen once, one part after the other, and named by their content as they pass."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator

import torch
from tqdm.auto import tqdm

from ..data import ImageData
from ..data.findings import SKIPPED, Findings
from ..data.images import Batch
from ..errors import DiskError
from ..identity import update_digest


# Real images that are decoded at once.
PART = 100
# A bar for as many images, which take a while.
MANY = 5000


def as_bytes(images: torch.Tensor) -> torch.Tensor:
    """Images in [0, 1] as they are saved: 8 bits a value. It is these that are measured."""
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)


def open_bar(count: int, label: str) -> tqdm:
    """A bar on standard error, for so many images that they take a while."""
    return tqdm(total=count, desc=label, unit="image", disable=count < MANY, file=sys.stderr)


class RealImages:
    """
    The readable images of a data set that is read anew whenever its images are asked for. In training, others take the
    places of those that cannot be read; here they are left out, as of a data set in memory.
    """

    def __init__(self, data: ImageData) -> None:
        self._data, self.channels, self.num_classes = data, data.channels, data.num_classes
        findings, kept = Findings(all=f"{len(data):,}"), []
        with open_bar(len(data), "reading the real images") as bar:
            for first in range(0, len(data), PART):
                numbers = list(range(first, min(first + PART, len(data))))
                failed = {number: (name, reason) for number, name, reason in self._read(numbers).failed}
                for number in set(numbers) & set(failed):
                    findings.note(SKIPPED, number, *failed[number])
                kept += [number for number in numbers if number not in failed]
                bar.update(len(numbers))
        findings.say()
        self._numbers = torch.tensor(kept)
        self.labels = None if data.labels is None else data.labels[self._numbers]

    def _read(self, numbers: list[int]) -> Batch:
        batch = self._data[numbers]
        if batch.images is None:
            # Raises what there is to say of a data set that is gone.
            self._data.take(batch)
        return batch

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitems__(self, numbers: list[int]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Images of shape `(batch_size, channels, height, width)`, `uint8`, and their labels or `None`."""
        batch = self._read(self._numbers[numbers].tolist())
        if batch.failed:
            _, name, reason = batch.failed[0]
            raise DiskError(f"{name} could be read before and now cannot ({reason}): give the command again")
        return batch.images, batch.labels


def skip_unreadable(data: ImageData) -> ImageData | RealImages:
    """A data set without the images that cannot be read, which one in memory has left out already."""
    return RealImages(data) if isinstance(data, ImageData) and not data.is_in_memory else data


def read_parts(data: ImageData | RealImages, size: int = PART) -> Iterator[torch.Tensor]:
    """All images of a data set in their order, `uint8`, `size` at a time; the last part may have fewer."""
    for first in range(0, len(data), size):
        yield data.__getitems__(list(range(first, min(first + size, len(data)))))[0]


def hash_images(data: ImageData | RealImages) -> str:
    """The content key of all images of a data set, as if they were one tensor. They pass by once."""
    digest = hashlib.blake2b(digest_size=16)
    update_digest(digest, ["images"])
    with open_bar(len(data), "naming the real images by their content") as bar:
        for number, images in enumerate(read_parts(data)):
            if number == 0:
                digest.update(f"{images.dtype}{(len(data), *images.shape[1:])}".encode())
            digest.update(images.contiguous().numpy())
            bar.update(len(images))
    return digest.hexdigest()
