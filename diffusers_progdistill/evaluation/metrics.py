"""How good images are: distances to a data set in the features of one extractor, and those of real images."""

from __future__ import annotations

from functools import cached_property

import torch

from ..data import ImageData
from ..errors import InputError
from ..identity import content_key
from .distances import frechet_distance, kernel_distance, precision_and_recall
from .extractors import Extractor, load_extractor
from .feature_file import FeatureTable
from .generated import GeneratedFeatures
from .images import as_bytes, hash_images, readable
from .moments import moments_of_parts, remove
from .real_features import take_real_features, take_real_moments


# Each half of them has an image with three neighbours.
LEAST_IMAGES = 8
# Precision and recall compare every image with every other.
MOST_COMPARED = 10_000
NUM_SPLITS = 5


class ImageMetrics:
    """
    Distances of images to a data set in the features of one extractor. Neither the images nor their features are in
    memory all at once.

    Args:
        data ([`ImageData`]): The real images; all of them are used.
        extractor ([`Extractor`], *optional*): Default: the seeded classifier.
        num_images (`int`, *optional*): How many generated images will be measured, for the real-vs-real figures.
        cache_dir (`str`, *optional*): Where the features of the real images are kept, by their content.

    Attributes:
        name (`str`): What the Frechet distance is called.
        data_key, key (`str`): Name the real images, and these and the extractor, by their content.

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
            raise InputError(f"the data hold {len(data)} images: evaluation needs {LEAST_IMAGES} or more")
        self.extractor = extractor or load_extractor("classifier", data, cache_dir=cache_dir)
        self.name, self.data_key = self.extractor.label, hash_images(data)
        self.key = content_key("features", self.extractor.key, self.data_key)
        self.features = take_real_features(data, self.extractor, self.key, cache_dir)
        self.moments = take_real_moments(self.features, self.key, cache_dir)
        self._split_size = min(num_images or len(data), len(data) // 2)

    @cached_property
    def real_vs_real(self) -> dict[str, float]:
        """
        The figures of [`measure`], of real images against the others: a random part of `num_images`, at most half of
        them. The Frechet distance is the mean of five such splits. Small sets lie further apart than large ones.
        """
        distances = []
        for number in range(NUM_SPLITS):
            part = moments_of_parts(self._split(number)[0].parts())
            distances.append(frechet_distance(remove(self.moments, part), part))
        part, rest = self._split(0)
        return {"frechet_distance": sum(distances) / NUM_SPLITS, **_compare_samples(rest, part)}

    def _split(self, number: int) -> tuple[FeatureTable, FeatureTable]:
        order = torch.randperm(len(self.features), generator=torch.Generator().manual_seed(number))
        part, rest = order[: self._split_size], order[self._split_size :]
        return self.features.select(part), self.features.select(rest)

    def collect(self) -> GeneratedFeatures:
        """Takes generated images as they are made, for [`measure`]."""
        return GeneratedFeatures(self.extractor)

    def distance(self, images: torch.Tensor) -> float:
        """Frechet distance of images in [0, 1], shape `(num_images, channels, height, width)`, to the data."""
        with self.collect() as generated:
            generated.add(as_bytes(images))
            return frechet_distance(self.moments, generated.moments)

    def measure(self, generated: GeneratedFeatures) -> dict[str, float]:
        """All figures of images: `frechet_distance`, `kernel_distance`, `precision`, `recall`."""
        distance = frechet_distance(self.moments, generated.moments)
        return {"frechet_distance": distance, **_compare_samples(self.features, generated.features)}


def load_metrics(config, num_images: int, data: ImageData, accelerator) -> dict[str, ImageMetrics]:
    """
    What the main process measures with, by the words of `--feature_extractor`; the others make images only.

    Raises:
        [`InputError`]: If two have one name, or one cannot be loaded.
    """
    if not accelerator.is_main_process:
        return {}
    names, data = [word.strip() for word in config.feature_extractor.split(",")], readable(data)
    options = {"device": accelerator.device, "cache_dir": config.cache_dir, "token": config.hub_token}
    extractors = {name: load_extractor(name, data, **options) for name in names}
    labels = [extractor.label for extractor in extractors.values()]
    if doubled := [label for label in labels if labels.count(label) > 1]:
        raise InputError(f"--feature_extractor: two are called {doubled[0]}; give each an --output_dir of its own")
    return {name: ImageMetrics(data, e, num_images, config.cache_dir) for name, e in extractors.items()}


def _compare_samples(real: FeatureTable, fake: FeatureTable) -> dict[str, float]:
    """The figures that look at single images, of a bounded number of them."""
    count = min(len(real), len(fake), MOST_COMPARED)
    order = torch.randperm(len(real), generator=torch.Generator().manual_seed(0))
    precision, recall = precision_and_recall(real[order[:count]], fake[torch.arange(count)])
    return {"kernel_distance": kernel_distance(real, fake), "precision": precision, "recall": recall}
