"""How far one set of images is from another: pure functions of their features, and of the images themselves."""

import warnings

import torch
from torch import nn


class Given(nn.Module):
    """Stands for an extractor where torchmetrics is given features."""

    def __init__(self, num_features: int):
        super().__init__()
        self.num_features = num_features

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features


def frechet_distance(real: torch.Tensor, fake: torch.Tensor) -> float:
    """
    Frechet distance of the Gaussians of two sets of features (Heusel et al., 2017), by torchmetrics.

    Args:
        real, fake (`torch.Tensor` of shape `(num_images, dimension)`): The features.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(Given(real.shape[1]), sync_on_compute=False).set_dtype(torch.float64)
    metric.update(real.double(), real=True)
    metric.update(fake.double(), real=False)
    return metric.compute().item()


def kernel_distance(real: torch.Tensor, fake: torch.Tensor, seed: int = 0) -> float:
    """Kernel distance (Binkowski et al., 2018): the mean of 20 subsets of at most 1,000 images, by torchmetrics."""
    from torchmetrics.image.kid import KernelInceptionDistance

    size = min(1000, len(real), len(fake))
    with warnings.catch_warnings():
        # It says that it keeps the features, which are in memory anyway.
        warnings.simplefilter("ignore", UserWarning)
        metric = KernelInceptionDistance(Given(real.shape[1]), subsets=20, subset_size=size, sync_on_compute=False)
    metric = metric.set_dtype(torch.float64)
    metric.update(real.double(), real=True)
    metric.update(fake.double(), real=False)
    # The subsets come from torch's own generator.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return metric.compute()[0].item()


def precision_and_recall(real: torch.Tensor, fake: torch.Tensor, neighbours: int = 3) -> tuple[float, float]:
    """
    Improved precision and recall (Kynkaanniemi et al., 2019): the share of one set that lies in the other's manifold,
    the union of balls around its points that reach to their third neighbour.

    Args:
        real, fake (`torch.Tensor` of shape `(num_images, dimension)`): Features of as many images each.
        neighbours (`int`, defaults to 3): Which neighbour the balls reach to.

    Returns:
        `tuple[float, float]`: Share of the fake within the real, and of the real within the fake.
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


def psnr(images: torch.Tensor, reference: torch.Tensor) -> float:
    """
    Agreement of images with those that another model makes of the same noise, in decibels: the mean over images of
    their peak signal-to-noise ratio, of which an identical one counts as one gray level off in a single pixel.

    Args:
        images, reference (`torch.Tensor` of shape `(num_images, channels, height, width)`): `uint8`.
    """
    error = (images.double() - reference.double()).square().mean((1, 2, 3))
    return (10 * torch.log10(255**2 / error.clamp(min=1 / images[0].numel()))).mean().item()
