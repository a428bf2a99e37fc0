"""Sampling for measurement, and the Frechet distance of samples to the data."""

import torch

from ..data import ImageData
from ..seeds import seed_of
from .features import train_classifier


def noise_of(seed: int, first: int, count: int, shape: tuple[int, ...]) -> tuple[torch.Tensor, list[torch.Generator]]:
    """
    Noise that images first ... first + count - 1 start from, and the generators of what more they need: image k's
    depend on (seed, k) alone.
    """
    generators = [torch.Generator().manual_seed(seed_of(seed, k)) for k in range(first, first + count)]
    return torch.stack([torch.randn(shape, generator=generator) for generator in generators]), generators


def generate(
    pipeline,
    num_images: int,
    num_steps: int,
    seed: int = 0,
    batch_size: int = 500,
    share: tuple[int, int] = (0, 1),
    guidance_scale: float = 1.0,
) -> torch.Tensor:
    """
    Images from a pipeline, the same ones whatever the number of processes. Class-conditional ones take turns.

    Args:
        pipeline ([`ProgressiveDistillationPipeline`]): What is sampled.
        num_images, num_steps (`int`): Number of images, and of sampling steps.
        seed (`int`, defaults to 0): Together with its number it makes the noise of an image.
        batch_size (`int`, defaults to 500): Images that are made in one go.
        share (`tuple[int, int]`, defaults to `(0, 1)`): Make only batches r, r + n, r + 2n, ... of `(r, n)`.
        guidance_scale (`float`, defaults to 1.0): See [`ProgressiveDistillationPipeline`].

    Returns:
        `torch.Tensor` of shape `(num_images, channels, height, width)`: On the CPU, in [0, 1].
    """
    shape, out = pipeline.latents_shape(1)[1:], []
    pipeline.set_progress_bar_config(disable=True)
    classes, labels = pipeline.num_classes if pipeline.is_conditional else None, None
    for first in range(share[0] * batch_size, num_images, share[1] * batch_size):
        size = min(batch_size, num_images - first)
        if classes is not None:
            labels = [k % classes for k in range(first, first + size)]
        noise, generators = noise_of(seed, first, size, shape)
        images = pipeline(
            size,
            latents=noise,
            generator=generators,
            num_inference_steps=num_steps,
            class_labels=labels,
            output_type="pt",
            guidance_scale=guidance_scale,
        )
        out.append(images.images.float().cpu())
    return torch.cat(out) if out else torch.zeros(0, *shape)


def generate_shared(
    accelerator, pipeline, num_images: int, num_steps: int, seed: int = 0, batch_size: int = 500, guidance_scale=1.0
):
    """[`generate`], with the batches shared among the processes; every process gets all images, in the same order."""
    rank, world = accelerator.process_index, accelerator.num_processes
    if world == 1:
        return generate(pipeline, num_images, num_steps, seed, batch_size, guidance_scale=guidance_scale)
    # Every process makes the same number of batches of the same size, so that they can be gathered.
    rounds = -(-num_images // (world * batch_size))
    padded = rounds * world * batch_size
    mine = generate(pipeline, padded, num_steps, seed, batch_size, (rank, world), guidance_scale)
    mine = mine.to(accelerator.device)
    all_images = accelerator.gather(mine).cpu()
    batches = all_images.view(world, rounds, batch_size, *all_images.shape[1:]).transpose(0, 1)
    return batches.reshape(padded, *all_images.shape[1:])[:num_images]


class FrechetDistance:
    """
    Frechet distance to a data set in the features of a seeded classifier of its labels (torchmetrics' computation).

    Attributes:
        name (`str`): What the figures are called.
        floor (`float`): Distance of one half of the data to the other, the mean of `num_splits` random splits. Halves
            are small sets, and small sets lie further apart: a model that is measured with more images can get below.
    """

    name = "FD (seeded classifier)"

    def __init__(self, data: ImageData, seed: int = 0, batch_size: int = 500, num_splits: int = 5):
        self.features, self.batch_size = train_classifier(data, seed), batch_size
        self.shape = (data.channels, data.resolution, data.resolution)
        real = data.all_images().float() / 255
        generator, half, floors = torch.Generator().manual_seed(seed), len(real) // 2, []
        for _ in range(num_splits):
            order = torch.randperm(len(real), generator=generator)
            self.metric = self._metric(real[order[:half]])
            floors.append(self.distance(real[order[half:]]))
        self.floor = sum(floors) / num_splits
        self.metric = self._metric(real)

    def _metric(self, real):
        from torchmetrics.image.fid import FrechetInceptionDistance

        metric = FrechetInceptionDistance(
            self.features,
            reset_real_features=False,
            normalize=True,
            input_img_size=self.shape,
            # Under several processes it would wait for all of them, and count the same images again.
            sync_on_compute=False,
        )
        for images in real.split(self.batch_size):
            metric.update(images, real=True)
        return metric

    def distance(self, images: torch.Tensor) -> float:
        """Distance of images in [0, 1], shape `(num_images, channels, height, width)`, to the data."""
        self.metric.reset()
        for chunk in images.split(self.batch_size):
            self.metric.update(chunk, real=False)
        return self.metric.compute().item()
