"""The figures against independent computations in float64, on fixed features."""

import numpy as np
import pytest
import scipy.linalg
import torch

from diffusers_progdistill.evaluation.cache import cached
from diffusers_progdistill.evaluation.distances import (
    compute_psnr,
    frechet_distance,
    kernel_distance,
    precision_and_recall,
)
from diffusers_progdistill.identity import content_key


def features(count, dimension, shift=0.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(dimension, dimension, generator=generator)
    return (torch.randn(count, dimension, generator=generator) @ mix + shift).float()


@pytest.mark.parametrize("dimension, counts", [(5, (300, 200)), (64, (1000, 900)), (40, (30, 500))])
def test_frechet_distance(dimension, counts):
    real, fake = features(counts[0], dimension), features(counts[1], dimension, 0.5, 1)
    a, b = real.double().numpy(), fake.double().numpy()
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(cov_a @ cov_b).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b - 2 * root)
    assert frechet_distance(real, fake) == pytest.approx(expected, rel=1e-6)


def test_frechet_distance_of_gaussians_in_closed_form():
    # Exactly standardised, then scaled and shifted: |m|^2 + d (s - 1)^2.
    x = torch.randn(500, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = (x - x.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.T))).T
    assert frechet_distance(x, 3 * x + 2) == pytest.approx(4 * 4 + 4 * 4, rel=1e-6)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6)


def test_kernel_distance_is_the_unbiased_mmd():
    # Subsets of all images are permutations of them, so that nothing is left to chance.
    real, fake = features(200, 8), features(200, 8, 0.5, 1)

    def kernel(x, y):
        return (x @ y.T / 8 + 1) ** 3

    a, b = real.double().numpy(), fake.double().numpy()
    within = sum((kernel(x, x).sum() - np.trace(kernel(x, x))) / (200 * 199) for x in (a, b))
    assert kernel_distance(real, fake) == pytest.approx(within - 2 * kernel(a, b).mean(), rel=1e-6)


def test_kernel_distance_of_subsets_repeats_itself():
    real, fake = features(1500, 8), features(1200, 8, 0.5, 1)
    torch.manual_seed(1)
    first = kernel_distance(real, fake)
    torch.manual_seed(2)
    assert kernel_distance(real, fake) == first != kernel_distance(real, fake, seed=1)


def test_precision_and_recall_by_definition():
    real, fake = features(300, 3), features(300, 3, 1.0, 1)

    def share(points, manifold):
        distance = np.linalg.norm(manifold[:, None] - manifold[None], axis=2)
        radii = np.sort(distance, axis=1)[:, 3]
        return (np.linalg.norm(points[:, None] - manifold[None], axis=2) <= radii).any(1).mean()

    a, b = real.double().numpy(), fake.double().numpy()
    assert precision_and_recall(real, fake) == pytest.approx((share(b, a), share(a, b)), abs=1e-12)
    assert precision_and_recall(real, real) == (1.0, 1.0)
    assert precision_and_recall(real, fake + 1000) == (0.0, 0.0)


def test_psnr():
    images = torch.full((2, 1, 4, 4), 100, dtype=torch.uint8)
    other = images.clone()
    other[1] += 10
    # The first is the same: as if one of its 16 pixels were a level off.
    expected = [10 * np.log10(255**2 * 16), 10 * np.log10(255**2 / 100)]
    assert compute_psnr(images, other).tolist() == pytest.approx(expected, rel=1e-9)


def test_cache_is_by_content(tmp_path):
    made = []

    def make():
        made.append(1)
        return {"features": torch.arange(3.0)}

    images = torch.arange(4, dtype=torch.uint8)
    for _ in range(2):
        assert torch.equal(cached(content_key("a", images), make, tmp_path)["features"], torch.arange(3.0))
    assert len(made) == 1
    assert len({content_key("a", images), content_key("b", images), content_key("a", images + 1)}) == 3
    assert content_key("a", images) != content_key("a", images.view(2, 2))
    # A half written file is made again.
    next(tmp_path.iterdir()).write_bytes(b"half")
    assert torch.equal(cached(content_key("a", images), make, tmp_path)["features"], torch.arange(3.0))
