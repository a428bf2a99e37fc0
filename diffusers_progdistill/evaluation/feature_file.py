"""Features in a file: a table whose rows are read when they are asked for."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from ..disk import writing


# Bytes of a table that are in memory at once.
PART_BYTES = 2**24
TENSOR_NAME = "features"


class FeatureFile:
    """
    Rows of `float32` in an open file. `table[index]` reads those rows alone.

    Args:
        file (`BinaryIO`): Open for reading; it stays readable when another process puts a new one in its place.
        shape (`tuple[int, int]`): Rows and width of the table.
        offset (`int`, defaults to 0): Where in the file the table begins.
    """

    def __init__(self, file: BinaryIO, shape: tuple[int, int], offset: int = 0):
        self.file, self.shape, self.offset = file, shape, offset

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: torch.Tensor) -> torch.Tensor:
        out = torch.empty(len(index), self.shape[1])
        # In the order of the file.
        for place in index.argsort().tolist():
            out[place] = self._read(int(index[place]), 1)[0]
        return out

    def parts(self) -> Iterator[torch.Tensor]:
        """All rows, in parts of some megabytes."""
        rows = max(1, PART_BYTES // (4 * self.shape[1]))
        for first in range(0, len(self), rows):
            yield self._read(first, min(rows, len(self) - first))

    def _read(self, first: int, count: int) -> torch.Tensor:
        width = 4 * self.shape[1]
        self.file.seek(self.offset + first * width)
        values = np.frombuffer(self.file.read(count * width), "<f4")
        return torch.from_numpy(values.copy()).view(count, self.shape[1])


class Selection:
    """Some rows of a table, named by their numbers, as a table of its own."""

    def __init__(self, table, index: torch.Tensor):
        self.table, self.index, self.shape = table, index, (len(index), table.shape[1])

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: torch.Tensor) -> torch.Tensor:
        return self.table[self.index[index]]

    def parts(self) -> Iterator[torch.Tensor]:
        """All of its rows, in parts of some megabytes."""
        rows = max(1, PART_BYTES // (4 * self.shape[1]))
        for index in self.index.split(rows):
            yield self.table[index]


def open_features(path: Path) -> FeatureFile | None:
    """The table of a `.safetensors` file that [`write_features`] made, or `None` if it is not there or not whole."""
    try:
        file = path.open("rb")
    except OSError:
        return None
    try:
        (length,) = struct.unpack("<Q", file.read(8))
        entry = json.loads(file.read(length))[TENSOR_NAME]
        rows, width = entry["shape"]
        whole = path.stat().st_size == 8 + length + 4 * rows * width
        if not whole or entry["dtype"] != "F32" or entry["data_offsets"][0] != 0:
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, struct.error, MemoryError, OverflowError):
        file.close()
        return None
    return FeatureFile(file, (rows, width), 8 + length)


def write_features(path: Path, parts: Iterator[torch.Tensor], count: int):
    """
    Write features as they come into a `.safetensors` file, which the library itself can only write in one piece.

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
                    file.write(_header(count, part.shape[1]))
                file.write(part.float().contiguous().numpy().astype("<f4", copy=False).tobytes())
            written += len(part)
        with writing(path):
            file.flush()
    if written != count:
        raise ValueError(f"{written} features of {count} images")


def _header(count: int, width: int) -> bytes:
    entry = {"dtype": "F32", "shape": [count, width], "data_offsets": [0, 4 * count * width]}
    text = json.dumps({TENSOR_NAME: entry}).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text
