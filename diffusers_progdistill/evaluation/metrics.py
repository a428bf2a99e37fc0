"""How good images are: distances to a data set in the features of one extractor, and the floor of real images."""

from __future__ import annotations

import torch

from ..data import ImageData
from ..errors import InputError
from .distances import frechet_distance
from .extractors import Extractor, load_extractor
from .generated import GeneratedFeatures
from .images import ALL_IMAGES, as_bytes, content_keys
from .real_features import real_features, real_moments
from .reference import Reference


# Each half of them has an image with three neighbours.
LEAST_IMAGES = 8


class ImageMetrics:
    """
    Distances of images to a data set in the features of one extractor. Neither the images nor their features are in
    memory all at once.

    Args:
        data ([`ImageData`]): The real images; all of them are used.
        extractor ([`Extractor`], *optional*): Default: the seeded classifier.
        num_images (`int`, *optional*): How many generated images will be measured, for the floor.
        cache_dir (`str`, *optional*): Where the features of the real images are kept, by their content.

    Attributes:
        name (`str`): What the Frechet distance is called.
        data_key, key (`str`): Name the real images, and these and the extractor, by their content.
        floor (`float`): Frechet distance of real images to real images: the mean of five random splits into
            `num_images` of them (at most half) and the others. Small sets lie further apart than large ones.

    Raises:
        [`InputError`]: If there are too few images.
    """

    def __init__(
        self,
        data: ImageData,
        extractor: Extractor | None = None,
        num_images: int | None = None,
        cache_dir: str | None = None,
    ):
        if len(data) < LEAST_IMAGES:
            raise InputError(f"the data hold {len(data)} images: measuring needs {LEAST_IMAGES} or more")
        self.extractor = extractor or load_extractor("classifier", data, cache_dir=cache_dir)
        self.name = self.extractor.label
        self.data_key, self.key = content_keys(
            data, ("images", ALL_IMAGES), ("features", self.extractor.key, ALL_IMAGES)
        )
        features = real_features(data, self.extractor, self.key, cache_dir)
        split_size = min(num_images or len(data), len(data) // 2)
        self.reference = Reference(features, real_moments(features, self.key, cache_dir), split_size)
        self.floor = self.reference.real_to_real

    def collect(self) -> GeneratedFeatures:
        """Takes generated images as they are made, for [`measure`]."""
        return GeneratedFeatures(self.extractor)

    def distance(self, images: torch.Tensor | GeneratedFeatures) -> float:
        """Frechet distance of images in [0, 1], shape `(num_images, channels, height, width)`, to the data."""
        with self._collected(images if isinstance(images, GeneratedFeatures) else as_bytes(images)) as generated:
            return frechet_distance(self.reference.moments, generated.moments)

    def measure(self, images: torch.Tensor | GeneratedFeatures) -> dict[str, float]:
        """All figures of `uint8` images: `frechet_distance`, `kernel_distance`, `precision`, `recall`."""
        with self._collected(images) as generated:
            return self.reference.compare(generated.features, generated.moments)

    def measure_floor(self) -> dict[str, float]:
        """The same figures of real images against the others."""
        return self.reference.all_real_to_real

    def _collected(self, images: torch.Tensor | GeneratedFeatures) -> GeneratedFeatures:
        if isinstance(images, GeneratedFeatures):
            return images
        generated = self.collect()
        generated.add(images)
        return generated
