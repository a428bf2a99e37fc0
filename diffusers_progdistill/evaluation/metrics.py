"""How good images are: distances to a data set in the features of one extractor, and the floor of real images."""

import torch

from ..data import ImageData
from ..errors import InputError
from .cache import cached, content_key
from .distances import frechet_distance, kernel_distance, precision_and_recall
from .extractors import Extractor, load_extractor


# Precision and recall compare every image with every other.
MOST_COMPARED = 10_000
FLOOR_SPLITS = 5
# Each half of them has an image with three neighbours.
LEAST_IMAGES = 8


def as_bytes(images: torch.Tensor) -> torch.Tensor:
    """Images in [0, 1] as they are saved: 8 bits a value. It is these that are measured."""
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)


class ImageMetrics:
    """
    Distances of images to a data set in the features of one extractor.

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
    """

    def __init__(
        self,
        data: ImageData,
        extractor: Extractor | None = None,
        num_images: int | None = None,
        cache_dir: str | None = None,
    ):
        self.extractor = extractor or load_extractor("classifier", data, cache_dir=cache_dir)
        self.name = self.extractor.label
        images = data.all_images()
        if len(images) < LEAST_IMAGES:
            raise InputError(f"the data hold {len(images)} images: measuring needs {LEAST_IMAGES} or more")
        self.data_key = content_key("images", images)
        self.key = content_key("features", self.extractor.key, images)
        self.real = cached(self.key, lambda: {"features": self.extractor(images)}, cache_dir)["features"]
        self.split_size = min(num_images or len(self.real), len(self.real) // 2)
        distances = [frechet_distance(rest, part) for part, rest in map(self._split, range(FLOOR_SPLITS))]
        self.floor = sum(distances) / FLOOR_SPLITS
        self._all_floors: dict[str, float] = {}

    def _split(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        order = torch.randperm(len(self.real), generator=torch.Generator().manual_seed(number))
        return self.real[order[: self.split_size]], self.real[order[self.split_size :]]

    def distance(self, images: torch.Tensor) -> float:
        """Frechet distance of images in [0, 1], shape `(num_images, channels, height, width)`, to the data."""
        return frechet_distance(self.real, self.extractor(as_bytes(images)))

    def measure(self, images: torch.Tensor) -> dict[str, float]:
        """All figures of `uint8` images: `frechet_distance`, `kernel_distance`, `precision`, `recall`."""
        features = self.extractor(images)
        return {"frechet_distance": frechet_distance(self.real, features), **self._others(self.real, features)}

    def measure_floor(self) -> dict[str, float]:
        """The same figures of real images against the others."""
        if not self._all_floors:
            part, rest = self._split(0)
            self._all_floors = {"frechet_distance": self.floor, **self._others(rest, part)}
        return self._all_floors

    def _others(self, real: torch.Tensor, features: torch.Tensor) -> dict[str, float]:
        count = min(len(real), len(features), MOST_COMPARED)
        order = torch.randperm(len(real), generator=torch.Generator().manual_seed(0))
        precision, recall = precision_and_recall(real[order[:count]], features[:count])
        return {"kernel_distance": kernel_distance(real, features), "precision": precision, "recall": recall}
