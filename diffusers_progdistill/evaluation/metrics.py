"""How good images are: distances to a data set in the features of one extractor, and those of real images."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from accelerate import Accelerator

from ..data import ImageData
from ..errors import InputError
from ..identity import content_key
from ..options import DataOptions
from .cache import cached
from .distances import frechet_distance, kernel_distance, precision_and_recall
from .extractors import CHUNK, Extractor, load_extractor
from .images import RealImages, as_bytes, hash_images, open_bar, read_parts, skip_unreadable
from .moments import Moments, compute_moments, merge, remove


# Each half of them has an image with three neighbours.
LEAST_IMAGES = 8
# Precision and recall compare every image with every other.
MOST_COMPARED = 10_000
NUM_SPLITS = 5
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


class ImageMetrics:
    """
    Distances of images to a data set in the features of one extractor, by default the seeded classifier. Neither the
    images nor their features are in memory all at once. For the real-vs-real figures it knows how many images will be
    measured. `data_key` and `key` name the real images, and these and the extractor, by their content.
    """

    def __init__(
        self,
        data: ImageData | RealImages,
        extractor: Extractor | None = None,
        num_images: int | None = None,
        cache_dir: str | None = None,
    ) -> None:
        if len(data) < LEAST_IMAGES:
            raise InputError(f"the data hold {len(data)} images: evaluation needs {LEAST_IMAGES} or more")
        self.extractor = extractor or load_extractor("classifier", data, cache_dir=cache_dir)
        self.name, self.data_key = self.extractor.label, hash_images(data)
        self.key = content_key("features", self.extractor.key, self.data_key)
        known = cached(self.key, lambda: self._see(data), cache_dir)
        self._moments, self._sample = Moments(len(data), known["mean"], known["scatter"]), known["sample"]
        self._num_images = num_images or len(data)

    def _see(self, data: ImageData | RealImages) -> dict[str, torch.Tensor]:
        """The moments and a random sample of the features of all real images, which pass by in parts."""
        is_kept = torch.zeros(len(data), dtype=torch.bool)
        is_kept[_shuffle(len(data), 0)[:MOST_KEPT]] = True
        collector = FeatureCollector(self.extractor, is_kept)
        with open_bar(len(data), f"{self.extractor.name} features of the real images") as bar:
            for images in read_parts(data):
                collector.add(images)
                bar.update(len(images))
        moments, sample = collector.finish()
        return {"mean": moments.mean, "scatter": moments.scatter, "sample": sample}

    @cached_property
    def real_vs_real(self) -> dict[str, float]:
        """The figures of a random part of the real images, as many as are generated or half, against the others."""
        size, distances = min(self._num_images, len(self._sample) // 2), []
        for number in range(NUM_SPLITS):
            part = compute_moments(self._sample[_shuffle(len(self._sample), number)[:size]])
            distances.append(frechet_distance(remove(self._moments, part), part))
        order = _shuffle(len(self._sample), 0)
        figures = _compare_samples(self._sample[order[size:]], self._sample[order[:size]])
        return {"frechet_distance": sum(distances) / NUM_SPLITS, **figures}

    def describe(self) -> dict[str, Any]:
        """What a row of figures says that they are compared with."""
        keys = {"real_images": self.data_key, "real_features": self.key}
        return {"metric": self.name, **keys, "real_vs_real": self.real_vs_real}

    def collect(self) -> FeatureCollector:
        """Takes generated images as they are made, for [`measure`]."""
        return FeatureCollector(self.extractor)

    def distance(self, images: torch.Tensor) -> float:
        """Frechet distance of images in [0, 1], shape `(num_images, channels, height, width)`, to the data."""
        generated = self.collect()
        generated.add(as_bytes(images))
        return frechet_distance(self._moments, generated.finish()[0])

    def measure(self, generated: FeatureCollector) -> dict[str, float]:
        """All figures of images: `frechet_distance`, `kernel_distance`, `precision`, `recall`."""
        moments, sample = generated.finish()
        return {"frechet_distance": frechet_distance(self._moments, moments), **_compare_samples(self._sample, sample)}


def load_metrics(
    config: DataOptions, words: str, num_images: int, data: ImageData, accelerator: Accelerator
) -> dict[str, ImageMetrics]:
    """What the main process measures with, by the words of `--feature_extractor`; the others make images only."""
    if not accelerator.is_main_process:
        return {}
    names, data = [word.strip() for word in words.split(",")], skip_unreadable(data)
    options = {"device": accelerator.device, "cache_dir": config.cache_dir, "token": config.hub_token}
    extractors = {name: load_extractor(name, data, **options) for name in names}
    labels = [extractor.label for extractor in extractors.values()]
    if doubled := [label for label in labels if labels.count(label) > 1]:
        raise InputError(f"--feature_extractor: two are called {doubled[0]}; give each an --output_dir of its own")
    return {name: ImageMetrics(data, e, num_images, config.cache_dir) for name, e in extractors.items()}


def _shuffle(count: int, seed: int) -> torch.Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def _compare_samples(real: torch.Tensor, fake: torch.Tensor) -> dict[str, float]:
    """The figures that look at single images."""
    count = min(len(real), len(fake), MOST_COMPARED)
    precision, recall = precision_and_recall(real[_shuffle(len(real), 0)[:count]], fake[:count])
    return {"kernel_distance": kernel_distance(real, fake), "precision": precision, "recall": recall}
