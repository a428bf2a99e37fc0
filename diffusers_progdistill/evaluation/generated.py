"""Features of generated images, taken as the images are made."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import torch

from ..disk import writing
from .extractors import CHUNK, Extractor
from .feature_file import FeatureTable, to_bytes
from .moments import Moments, compute_moments, merge


# Features that are kept in memory, in bytes; more go to a temporary file.
MEMORY_BYTES = 2**26


class GeneratedFeatures:
    """
    Features of generated images, which may come in parts of any sizes: an extractor sees the same groups of them. As a
    context, it ends with its temporary file.

    Args:
        extractor ([`Extractor`]): Makes the features.
    """

    def __init__(self, extractor: Extractor):
        self.extractor = extractor
        self._moments, self._waiting, self._shape = None, None, (0, 0)
        self._file = tempfile.SpooledTemporaryFile(MEMORY_BYTES)

    def __enter__(self) -> GeneratedFeatures:
        return self

    def __exit__(self, *_):
        self._file.close()

    def add(self, images: torch.Tensor):
        """Take further `uint8` images of shape `(num_images, channels, height, width)`."""
        waiting = images if self._waiting is None else torch.cat([self._waiting, images])
        end = len(waiting) - len(waiting) % CHUNK
        self._take(waiting[:end])
        self._waiting = waiting[end:].clone()

    def _take(self, images: torch.Tensor):
        for part in images.split(CHUNK) if len(images) else ():
            features = self.extractor(part)
            self._moments = merge(self._moments, compute_moments(features))
            self._shape = (self._shape[0] + len(features), features.shape[1])
            with writing(Path(tempfile.gettempdir())):
                self._file.seek(0, os.SEEK_END)
                self._file.write(to_bytes(features))

    def _finish(self):
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            self._take(waiting)

    @property
    def moments(self) -> Moments:
        """Mean and covariance of the features of all images so far; no more can be added."""
        self._finish()
        return self._moments

    @property
    def features(self) -> FeatureTable:
        """The features themselves; no more images can be added."""
        self._finish()
        return FeatureTable(self._file, self._shape)
