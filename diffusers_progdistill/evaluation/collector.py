"""What distances need of the features of images that pass by, in bounded memory."""

import torch

from .extractors import CHUNK, Extractor
from .moments import Moments, compute_moments, merge


# Features that are kept of one set of images; of larger sets the distances that look at single ones see a sample.
MOST_KEPT = 20_000


class FeatureCollector:
    """The moments of all features, and the features themselves of the images in `is_kept`, or of the first ones."""

    def __init__(self, extractor: Extractor, is_kept: torch.Tensor | None = None) -> None:
        self.extractor, self._is_kept = extractor, is_kept
        self._moments, self._kept, self._waiting = None, [], []

    def add(self, images: torch.Tensor) -> None:
        """Take further `uint8` images, in parts of any sizes: an extractor sees the same groups of them."""
        waiting = torch.cat([*self._waiting, images])
        end = len(waiting) - len(waiting) % CHUNK
        self._take(waiting[:end])
        self._waiting = [waiting[end:].clone()]

    def _take(self, images: torch.Tensor) -> None:
        for part in images.split(CHUNK) if len(images) else ():
            features = self.extractor(part)
            first = 0 if self._moments is None else self._moments.count
            numbers = torch.arange(first, first + len(features))
            is_kept = numbers < MOST_KEPT if self._is_kept is None else self._is_kept[numbers]
            self._kept.append(features[is_kept])
            self._moments = merge(self._moments, compute_moments(features))

    def finish(self) -> tuple[Moments, torch.Tensor]:
        """The moments, and the features that were kept, in their order."""
        waiting, self._waiting = self._waiting, []
        for images in waiting:
            self._take(images)
        return self._moments, torch.cat(self._kept)
