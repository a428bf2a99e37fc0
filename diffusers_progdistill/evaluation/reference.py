"""The real images in the features of one extractor: what generated ones are compared with."""

from __future__ import annotations

from functools import cached_property

import torch

from .distances import frechet_distance, kernel_distance, precision_and_recall
from .feature_file import FeatureFile, Selection
from .moments import Moments, moments_of_parts, remove


# Precision and recall compare every image with every other.
MOST_COMPARED = 10_000
NUM_SPLITS = 5


class Reference:
    """
    Distances to the real images. Beside the moments only the features that a distance asks for are read.

    Args:
        features ([`FeatureFile`]): Features of all real images.
        moments ([`Moments`]): Of all of them.
        split_size (`int`): Images of the part that is compared with the others.
    """

    def __init__(self, features: FeatureFile, moments: Moments, split_size: int):
        self.features, self.moments, self.split_size = features, moments, split_size

    def compare(self, features, moments: Moments) -> dict[str, float]:
        """All figures of other features: `frechet_distance`, `kernel_distance`, `precision`, `recall`."""
        return {
            "frechet_distance": frechet_distance(self.moments, moments),
            **_compare_samples(self.features, features),
        }

    @cached_property
    def real_to_real(self) -> float:
        """Frechet distance of real images to real images: the mean of five random splits into a part and the rest."""
        distances = []
        for number in range(NUM_SPLITS):
            part = moments_of_parts(self._split(number)[0].parts())
            distances.append(frechet_distance(remove(self.moments, part), part))
        return sum(distances) / NUM_SPLITS

    @cached_property
    def all_real_to_real(self) -> dict[str, float]:
        """The figures of [`compare`], of a part of the real images and the rest."""
        part, rest = self._split(0)
        return {"frechet_distance": self.real_to_real, **_compare_samples(rest, part)}

    def _split(self, number: int) -> tuple[Selection, Selection]:
        order = torch.randperm(len(self.features), generator=torch.Generator().manual_seed(number))
        return tuple(Selection(self.features, i) for i in (order[: self.split_size], order[self.split_size :]))


def _compare_samples(real, fake) -> dict[str, float]:
    """The figures that look at single images, of a bounded number of them."""
    count = min(len(real), len(fake), MOST_COMPARED)
    order = torch.randperm(len(real), generator=torch.Generator().manual_seed(0))
    precision, recall = precision_and_recall(real[order[:count]], fake[torch.arange(count)])
    return {"kernel_distance": kernel_distance(real, fake), "precision": precision, "recall": recall}
