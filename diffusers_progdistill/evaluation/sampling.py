"""Images for measurement: image k depends on its seed and number alone, whatever makes it and however many at once."""

import math

import torch
from tqdm.auto import tqdm

from ..seeds import derive_seed
from .samplers import OWN, sample


# Values that the network sees at once. On a CPU a chunk of 500 images of 8x8, 167 of 28x28, 42 of 32x32 in colour:
# twice as many leave a processor's cache, and small networks then take a third longer. A GPU would wait for the host.
CPU_VALUES, DEVICE_VALUES, LARGEST_CHUNK, SMALLEST_CHUNK = 2**17, 2**20, 500, 4


def chunk_size(shape: tuple[int, ...], device: torch.device) -> int:
    """
    Images that the network sees at once. It depends on their shape and the kind of device alone, since the last digits
    of what a network makes of an image depend on the images beside it.
    """
    values = CPU_VALUES if device.type == "cpu" else DEVICE_VALUES
    return max(SMALLEST_CHUNK, min(LARGEST_CHUNK, values // math.prod(shape)))


def draw_noise(
    seed: int, first: int, count: int, shape: tuple[int, ...]
) -> tuple[torch.Tensor, list[torch.Generator]]:
    """
    Noise that images first ... first + count - 1 start from, and the generators of what more they need: image k's
    depend on (seed, k) alone.
    """
    generators = [torch.Generator().manual_seed(derive_seed(seed, k)) for k in range(first, first + count)]
    return torch.stack([torch.randn(shape, generator=generator) for generator in generators]), generators


def generate(
    pipeline,
    num_images: int,
    num_steps: int,
    seed: int = 0,
    guidance_scale: float = 1.0,
    sampler: str = OWN,
    first: int = 0,
    share: tuple[int, int] = (0, 1),
    bar: tqdm | None = None,
    chunk: int | None = None,
) -> torch.Tensor:
    """
    Images from a pipeline. Class-conditional ones take turns.

    Args:
        pipeline ([`ProgressiveDistillationPipeline`]): What is sampled.
        num_images, num_steps (`int`): Number of images, and of sampling steps.
        seed (`int`, defaults to 0): Together with its number it makes the noise of an image.
        guidance_scale (`float`, defaults to 1.0): See [`ProgressiveDistillationPipeline`].
        sampler (`str`, defaults to the model's own): One of [`SAMPLERS`].
        first (`int`, defaults to 0): Number of the first image, the first of a chunk.
        share (`tuple[int, int]`, defaults to `(0, 1)`): Make only chunks r, r + n, r + 2n, ... of `(r, n)`.
        bar (`tqdm`, *optional*): Is told of the images that are made.
        chunk (`int`, *optional*): Images that the network sees at once, where only a few are wanted, to be looked at.
            Default: what [`chunk_size`] says, as figures need it.

    Returns:
        `torch.Tensor` of shape `(num_images, channels, height, width)`: On the CPU, in [0, 1].
    """
    shape, out = pipeline.latents_shape(1)[1:], []
    pipeline.set_progress_bar_config(disable=True)
    known, labels = pipeline.known_labels, None
    size, end = chunk or chunk_size(shape, pipeline.device), first + num_images
    for start in range(first + share[0] * size, end, share[1] * size):
        # The last chunk is as large as the others, and cut.
        noise, generators = draw_noise(seed, start, size, shape)
        if known is not None:
            labels = [known[k % len(known)] for k in range(start, start + size)]
        images = sample(pipeline, sampler, num_steps, noise, generators, labels, guidance_scale)
        out.append(images[: end - start].float().cpu())
        if bar is not None:
            bar.update(len(out[-1]) * share[1])
    return torch.cat(out) if out else torch.zeros(0, *shape)


def parts_of(accelerator, pipeline, num_images: int, batch_size: int, least: int = 1) -> list[tuple[int, int]]:
    """
    First image and number of images of each part that is made before it is looked at: about `batch_size` images, in
    whole chunks and at least one chunk for each process.

    Args:
        accelerator ([`~accelerate.Accelerator`]): The processes.
        pipeline ([`ProgressiveDistillationPipeline`]): What is sampled.
        num_images, batch_size (`int`): All images, and those of a part.
        least (`int`, defaults to 1): Each part but the last has a multiple of so many chunks.
    """
    size = chunk_size(pipeline.latents_shape(1)[1:], pipeline.device)
    chunks = max(accelerator.num_processes, batch_size // size)
    step = size * least * math.ceil(chunks / least)
    return [(first, min(step, num_images - first)) for first in range(0, num_images, step)]


def generate_shared(
    accelerator,
    pipeline,
    num_images: int,
    num_steps: int,
    seed: int = 0,
    batch_size: int = 500,
    chunk: int | None = None,
    first: int = 0,
    **options,
) -> torch.Tensor:
    """
    [`generate`], with the chunks shared among the processes; every process gets all images, in the same order. About
    `batch_size` images, in whole chunks, are made before they are gathered.
    """
    rank, world = accelerator.process_index, accelerator.num_processes
    if world == 1:
        return generate(pipeline, num_images, num_steps, seed, chunk=chunk, first=first, **options)
    shape, out = pipeline.latents_shape(1)[1:], []
    size, end = chunk or chunk_size(shape, pipeline.device), first + num_images
    rounds = max(1, batch_size // (world * size))
    for start in range(first, end, rounds * world * size):
        count = min(rounds * world * size, end - start)
        mine = generate(pipeline, count, num_steps, seed, first=start, share=(rank, world), chunk=chunk, **options)
        # What can be gathered has one shape in every process.
        padded = torch.zeros(rounds * size, *shape)
        padded[: len(mine)] = mine
        gathered = accelerator.gather(padded.to(accelerator.device)).cpu()
        chunks = gathered.view(world, rounds, size, *shape).transpose(0, 1)
        out.append(chunks.reshape(rounds * world * size, *shape)[:count])
    return torch.cat(out)
