"""Images for evaluation: image k depends on its seed and number alone, whatever makes it and however many at once."""

import math
from collections.abc import Callable

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from ..pipelines.pipeline_progressive_distillation import ProgressiveDistillationPipeline
from ..seeds import derive_seed
from .samplers import OWN, SamplingOptions, sample


# Values that the network sees at once. On a CPU a chunk of 500 images of 8x8, 167 of 28x28, 42 of 32x32 in colour:
# twice as many leave a processor's cache, and small networks then take a third longer. A GPU would wait for the host.
CPU_VALUES, DEVICE_VALUES, LARGEST_CHUNK, SMALLEST_CHUNK = 2**17, 2**20, 500, 4


def chunk_size(pipeline: ProgressiveDistillationPipeline) -> int:
    """Images that the network sees at once, by their shape and the kind of device alone."""
    # The last digits of what a network makes of an image depend on the images beside it.
    values = CPU_VALUES if pipeline.device.type == "cpu" else DEVICE_VALUES
    return max(SMALLEST_CHUNK, min(LARGEST_CHUNK, values // math.prod(pipeline.latents_shape(1))))


def draw_noise(
    seed: int, first: int, count: int, shape: tuple[int, ...]
) -> tuple[torch.Tensor, list[torch.Generator]]:
    """Noise that images first ... first + count - 1 start from, and the generators of what more they need."""
    generators = [torch.Generator().manual_seed(derive_seed(seed, k)) for k in range(first, first + count)]
    return torch.stack([torch.randn(shape, generator=generator) for generator in generators]), generators


def sample_chunk(
    pipeline: ProgressiveDistillationPipeline, options: SamplingOptions, first: int, count: int
) -> torch.Tensor:
    """Images first ... first + count - 1 in one batch, on the CPU, in [0, 1]. Class-conditional ones take turns."""
    pipeline.set_progress_bar_config(disable=True)
    noise, generators = draw_noise(options.seed, first, count, pipeline.latents_shape(1)[1:])
    known = pipeline.known_labels
    labels = None if known is None else [known[k % len(known)] for k in range(first, first + count)]
    return sample(pipeline, options, noise, generators, labels).float().cpu()


def generate(
    pipeline: ProgressiveDistillationPipeline,
    num_images: int,
    num_steps: int,
    seed: int = 0,
    guidance_scale: float = 1.0,
    sampler: str = OWN,
) -> torch.Tensor:
    """Images from a pipeline by [`SamplingOptions`], on the CPU, in [0, 1]. Class-conditional ones take turns."""
    options, size = SamplingOptions(num_steps, seed, guidance_scale, sampler), chunk_size(pipeline)
    # The last chunk is as large as the others, and cut.
    chunks = [sample_chunk(pipeline, options, first, size) for first in range(0, num_images, size)]
    return torch.cat(chunks)[:num_images]


def generate_shared(
    accelerator: Accelerator, make_chunk: Callable[[int], torch.Tensor], part: range, size: int
) -> torch.Tensor:
    """The images of a part; the processes share its chunks of `size`, made from the number of the first image."""
    mine = part[accelerator.process_index * size :: accelerator.num_processes * size]
    made = gather_object([(first, make_chunk(first)) for first in mine])
    return torch.cat([images for _, images in sorted(made, key=lambda pair: pair[0])])[: len(part)]


def split_parts(num_images: int, size: int, batch_size: int, num_processes: int) -> list[range]:
    """Parts of about `batch_size` images, in whole chunks of `size` and at least one chunk for each process."""
    step = size * max(num_processes, batch_size // size)
    return [range(first, min(first + step, num_images)) for first in range(0, num_images, step)]
