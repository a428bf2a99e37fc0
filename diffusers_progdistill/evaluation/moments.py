"""Mean and covariance of features that are seen in parts: all that the Frechet distance needs of a set of images."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Moments:
    """Mean and spread of a set of features, in `float64` on the CPU."""

    count: int
    mean: torch.Tensor
    # Sum of the outer products of what each is off the mean, which keeps its digits where the mean is large.
    scatter: torch.Tensor

    @property
    def covariance(self) -> torch.Tensor:
        """The unbiased covariance."""
        return self.scatter / (self.count - 1)


def compute_moments(features: torch.Tensor) -> Moments:
    """Moments of one part, of shape `(num_images, dimension)`."""
    features = features.double()
    mean = features.mean(0)
    deviations = features - mean
    return Moments(len(features), mean, deviations.T @ deviations)


def merge(one: Moments | None, other: Moments) -> Moments:
    """Moments of two sets together (Chan et al., 1979), in whatever order and parts; `None` is an empty set."""
    if one is None:
        return other
    count, difference = one.count + other.count, other.mean - one.mean
    mean = one.mean + difference * (other.count / count)
    between = torch.outer(difference, difference) * (one.count * other.count / count)
    return Moments(count, mean, one.scatter + other.scatter + between)


def remove(whole: Moments, part: Moments) -> Moments:
    """Moments of what is left of a set without one of its parts."""
    count = whole.count - part.count
    mean = (whole.mean * whole.count - part.mean * part.count) / count
    difference = part.mean - mean
    between = torch.outer(difference, difference) * (count * part.count / whole.count)
    return Moments(count, mean, whole.scatter - part.scatter - between)
