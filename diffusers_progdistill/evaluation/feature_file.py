"""Features in a file: a table whose rows are read when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from ..disk import writing


# Bytes of a table that are in memory at once.
PART_BYTES = 2**24
ROW_TYPE = np.dtype("<f4")


class FeatureTable:
    """
    Rows of `float32` in an open file. `table[index]` reads those rows alone.

    Args:
        file (`BinaryIO`): Open for reading; it stays readable when another process puts a new one in its place.
        shape (`tuple[int, int]`): Rows and width of what the file holds.
        offset (`int`, defaults to 0): Where in the file the rows begin.
        numbers (`torch.Tensor`, *optional*): Which rows the table has. Default: all.
    """

    def __init__(self, file: BinaryIO, shape: tuple[int, int], offset: int = 0, numbers: torch.Tensor | None = None):
        self.file, self.shape, self.offset, self.numbers = file, shape, offset, numbers

    def __len__(self) -> int:
        return self.shape[0] if self.numbers is None else len(self.numbers)

    def __getitem__(self, index: torch.Tensor) -> torch.Tensor:
        numbers = index if self.numbers is None else self.numbers[index]
        out = torch.empty(len(numbers), self.shape[1])
        # In the order of the file.
        for place in numbers.argsort().tolist():
            out[place] = self._read(int(numbers[place]), 1)[0]
        return out

    def select(self, numbers: torch.Tensor) -> FeatureTable:
        """Some rows of a whole table, as a table of its own."""
        return FeatureTable(self.file, self.shape, self.offset, numbers)

    def parts(self) -> Iterator[torch.Tensor]:
        """All rows, in parts of some megabytes."""
        rows = max(1, PART_BYTES // (ROW_TYPE.itemsize * self.shape[1]))
        for first in range(0, len(self), rows):
            count = min(rows, len(self) - first)
            yield self._read(first, count) if self.numbers is None else self[torch.arange(first, first + count)]

    def _read(self, first: int, count: int) -> torch.Tensor:
        width = ROW_TYPE.itemsize * self.shape[1]
        self.file.seek(self.offset + first * width)
        values = np.frombuffer(self.file.read(count * width), ROW_TYPE)
        return torch.from_numpy(values.copy()).view(count, self.shape[1])


def to_bytes(features: torch.Tensor) -> bytes:
    """Rows as they stand in a file."""
    return features.float().contiguous().numpy().astype(ROW_TYPE, copy=False).tobytes()


def open_features(path: Path) -> FeatureTable | None:
    """The table of a file that [`write_features`] made, or `None` if it is not there or not whole."""
    try:
        file = path.open("rb")
    except OSError:
        return None
    try:
        np.lib.format.read_magic(file)
        (rows, width), is_transposed, kind = np.lib.format.read_array_header_1_0(file)
        whole = path.stat().st_size == file.tell() + ROW_TYPE.itemsize * rows * width
        if not whole or is_transposed or kind != ROW_TYPE:
            raise ValueError
    except (OSError, ValueError, EOFError):
        file.close()
        return None
    return FeatureTable(file, (rows, width), file.tell())


def write_features(path: Path, parts: Iterator[torch.Tensor], count: int):
    """
    Write features as they come into a file of numpy's format.

    Args:
        path (`Path`): The file.
        parts (`Iterator[torch.Tensor]`): Features, each of shape `(any, width)`.
        count (`int`): How many they are together.
    """
    written = 0
    # The images that they are made of may be what cannot be read: only writing is put down to this file.
    with path.open("wb") as file:
        for part in parts:
            with writing(path):
                if not written:
                    header = {"descr": ROW_TYPE.str, "fortran_order": False, "shape": (count, part.shape[1])}
                    np.lib.format.write_array_header_1_0(file, header)
                file.write(to_bytes(part))
            written += len(part)
        with writing(path):
            file.flush()
    if written != count:
        raise ValueError(f"{written} features of {count} images")
