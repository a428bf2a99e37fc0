"""Features of the real images, made once and kept on disk by the content of the images and of the extractor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from ..identity import content_key
from .cache import cached, list_paths, write_entry
from .extractors import CHUNK
from .feature_file import FeatureTable, open_features, write_features
from .images import open_bar, read_parts
from .moments import Moments, moments_of_parts


def take_real_features(data, extractor, key: str, cache_dir: str | None = None) -> FeatureTable:
    """
    Features of all images of a data set. They pass by in parts; an interruption leaves nothing behind.

    Args:
        data ([`ImageData`]): The images.
        extractor ([`Extractor`]): Makes the features.
        key (`str`): Names the images and the extractor by their content.
        cache_dir (`str`, *optional*): Where they are kept.
    """
    for path in list_paths(f"{key}.npy", cache_dir):
        features = open_features(path)
        if features is not None and len(features) == len(data):
            return features

    def make() -> Iterator[torch.Tensor]:
        with open_bar(len(data), f"{extractor.name} features of the real images") as bar:
            for images in read_parts(data, CHUNK):
                yield extractor(images)
                bar.update(len(images))

    def write(temporary: Path):
        write_features(temporary, make(), len(data))

    return open_features(write_entry(f"{key}.npy", write, cache_dir))


def take_real_moments(features: FeatureTable, key: str, cache_dir: str | None = None) -> Moments:
    """Mean and covariance of features, kept beside them."""

    def make() -> dict[str, torch.Tensor]:
        moments = moments_of_parts(features.parts())
        return {"mean": moments.mean, "scatter": moments.scatter}

    kept = cached(content_key("moments", key), make, cache_dir)
    return Moments(len(features), kept["mean"], kept["scatter"])
