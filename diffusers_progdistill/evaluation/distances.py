"""How far one set of images is from another: pure functions of their features, and of the images themselves."""

from __future__ import annotations

import torch

from .moments import Moments, compute_moments


KERNEL_SUBSETS, MOST_IN_SUBSET = 20, 1000


def frechet_distance(real: torch.Tensor | Moments, fake: torch.Tensor | Moments) -> float:
    """Frechet distance of the Gaussians of two sets of features or their moments (Heusel et al., 2017)."""
    real, fake = (x if isinstance(x, Moments) else compute_moments(x) for x in (real, fake))
    # The root's trace as the sum of the roots of the product's eigenvalues, which are real and not negative.
    roots = torch.linalg.eigvals(real.covariance @ fake.covariance).sqrt().real
    shift = (real.mean - fake.mean).square().sum()
    return (shift + real.covariance.trace() + fake.covariance.trace() - 2 * roots.sum()).item()


def kernel_distance(real: torch.Tensor, fake: torch.Tensor, seed: int = 0) -> float:
    """Kernel distance (Binkowski et al., 2018): the mean of 20 subsets of at most 1,000 images, by torchmetrics."""
    from torchmetrics.image.kid import poly_mmd

    size = min(MOST_IN_SUBSET, len(real), len(fake))
    generator, distances = torch.Generator().manual_seed(seed), []
    for _ in range(KERNEL_SUBSETS):
        subsets = [x[torch.randperm(len(x), generator=generator)[:size]].double() for x in (real, fake)]
        distances.append(poly_mmd(*subsets))
    return torch.stack(distances).mean().item()


def precision_and_recall(real: torch.Tensor, fake: torch.Tensor, neighbours: int = 3) -> tuple[float, float]:
    """
    Improved precision and recall (Kynkaanniemi et al., 2019) of as many features each: the share of one set that lies
    in the other's manifold, the union of balls around its points that reach to their third neighbour.
    """
    real, fake = real.double(), fake.double()
    real_radii, fake_radii = _radii(real, neighbours), _radii(fake, neighbours)
    is_precise, is_recalled = [], torch.zeros(len(real), dtype=torch.bool, device=real.device)
    # In parts, since all distances at once are 800 MB of 10,000 images.
    for part, radii in zip(fake.split(256), fake_radii.split(256)):
        distances = _distances(part, real)
        is_precise.append((distances <= real_radii).any(1))
        is_recalled |= (distances <= radii[:, None]).any(0)
    return torch.cat(is_precise).double().mean().item(), is_recalled.double().mean().item()


def _radii(points: torch.Tensor, neighbours: int) -> torch.Tensor:
    """Of the balls of a set's manifold. The nearest of the set to one of its own points is the point itself."""
    return torch.cat([_distances(part, points).kthvalue(neighbours + 1, 1).values for part in points.split(256)])


def _distances(points: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    return torch.cdist(points, others, compute_mode="donot_use_mm_for_euclid_dist")


def compute_psnr(images: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """The peak signal-to-noise ratio of each `uint8` image in decibels, finite for an identical one."""
    error = (images.double() - reference.double()).square().mean((1, 2, 3))
    # An identical one counts as one gray level off in a single pixel.
    return 10 * torch.log10(255**2 / error.clamp(min=1 / images[0].numel()))
