"""Features of the real images, made once and kept on disk by the content of the images and of the extractor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from .cache import cached, content_key, paths_of, write_entry
from .extractors import CHUNK
from .feature_file import FeatureFile, open_features, write_features
from .images import bar_of, parts_of
from .moments import Moments, moments_of_parts


def real_features(data, extractor, key: str, cache_dir: str | None = None) -> FeatureFile:
    """
    Features of all images of a data set. They pass by in parts; an interruption leaves nothing behind.

    Args:
        data ([`ImageData`]): The images.
        extractor ([`Extractor`]): Makes the features.
        key (`str`): Names the images and the extractor by their content.
        cache_dir (`str`, *optional*): Where they are kept.
    """
    for path in paths_of(key, cache_dir):
        features = open_features(path)
        if features is not None and len(features) == len(data):
            return features

    def write(temporary: Path):
        write_features(temporary, _passing(data, extractor), len(data))

    return open_features(write_entry(key, write, cache_dir))


def _passing(data, extractor) -> Iterator[torch.Tensor]:
    with bar_of(len(data), f"{extractor.name} features of the real images") as bar:
        for images in parts_of(data, CHUNK):
            yield extractor(images)
            bar.update(len(images))


def real_moments(features: FeatureFile, key: str, cache_dir: str | None = None) -> Moments:
    """Mean and covariance of features, kept beside them."""

    def make() -> dict[str, torch.Tensor]:
        moments = moments_of_parts(features.parts())
        return {"mean": moments.mean, "scatter": moments.scatter}

    kept = cached(content_key("moments", key), make, cache_dir)
    return Moments(len(features), kept["mean"], kept["scatter"])
