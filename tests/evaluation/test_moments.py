"""Mean and covariance in parts, against numpy's of all at once in float64."""

import functools

import numpy as np
import pytest
import torch
from torchmetrics.image.fid import FrechetInceptionDistance

from diffusers_progdistill.evaluation.distances import frechet_distance
from diffusers_progdistill.evaluation.moments import compute_moments, merge, remove


def moments_of_parts(parts):
    return functools.reduce(merge, map(compute_moments, parts), None)


def plain(count, width):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(count))


def mixed(count, width):
    return plain(count, width) @ plain(width, width)


def far_from_zero(count, width):
    """Sums of squares would lose half of their digits."""
    return plain(count, width).double() + 1e4


def with_dead_features(count, width):
    return plain(count, width) * (torch.arange(width) % 3 > 0)


KINDS = [plain, mixed, far_from_zero, with_dead_features]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count, width, size", [(300, 8, 1), (300, 8, 7), (301, 16, 100), (12, 20, 5), (300, 8, 300)])
def test_parts_of_any_size_give_the_moments_of_all(kind, count, width, size):
    features = kind(count, width)
    values = features.double().numpy()
    moments = moments_of_parts(features.split(size))
    assert moments.count == count and moments.mean.dtype == torch.float64
    np.testing.assert_allclose(moments.mean, values.mean(0), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(moments.covariance, np.cov(values, rowvar=False), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("processes", [2, 3, 8])
def test_processes_that_share_the_parts_give_the_same(kind, processes):
    features = kind(800, 8)
    whole, merged = compute_moments(features), None
    for rank in reversed(range(processes)):
        merged = merge(merged, moments_of_parts(features.split(10)[rank::processes]))
    torch.testing.assert_close(merged.mean, whole.mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(merged.scatter, whole.scatter, rtol=1e-10, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", [1, 30, 150, 298])
def test_what_is_left_without_a_part(kind, part):
    features = kind(300, 8)
    rest, expected = (
        remove(compute_moments(features), compute_moments(features[:part])),
        compute_moments(features[part:]),
    )
    assert rest.count == 300 - part
    torch.testing.assert_close(rest.mean, expected.mean, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(rest.scatter, expected.scatter, rtol=1e-8, atol=1e-6)


@pytest.mark.parametrize("kind", [plain, mixed, with_dead_features])
def test_frechet_distance_is_that_of_torchmetrics(kind):
    real, fake = kind(400, 12), kind(350, 12) + 0.3

    class Given(torch.nn.Module):
        num_features = 12

        def forward(self, features):
            return features

    metric = FrechetInceptionDistance(Given(), sync_on_compute=False).set_dtype(torch.float64)
    metric.update(real.double(), real=True)
    metric.update(fake.double(), real=False)
    parts = [moments_of_parts(x.split(33)) for x in (real, fake)]
    assert frechet_distance(*parts) == pytest.approx(metric.compute().item(), rel=1e-9)
    assert frechet_distance(real, fake) == pytest.approx(metric.compute().item(), rel=1e-9)
