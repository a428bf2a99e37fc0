"""The networks that everything is timed with, and images of their size."""

import torch
from diffusers import UNet2DModel

from diffusers_progdistill.data import ImageData


NETWORKS = {
    # name: (image size, widths, layers a block, groups)
    "demo, 8x8": (8, (16, 32), 1, 8),
    "0.4 M, 16x16": (16, (32, 48, 48), 1, 16),
    "1 M, 28x28": (28, (32, 64, 96), 1, 16),
    "0.3 M, 28x28": (28, (16, 32, 32), 1, 8),
}


def make_network(name: str, seed: int = 0) -> UNet2DModel:
    """One of the networks with weights of a seed."""
    size, widths, layers, groups = NETWORKS[name]
    torch.manual_seed(seed)
    return UNet2DModel(
        sample_size=size,
        in_channels=1,
        out_channels=1,
        block_out_channels=widths,
        layers_per_block=layers,
        down_block_types=("DownBlock2D",) * len(widths),
        up_block_types=("UpBlock2D",) * len(widths),
        add_attention=False,
        norm_num_groups=groups,
    )


def make_images(name: str, count: int = 512) -> ImageData:
    """Random images of a network's size."""
    size = NETWORKS[name][0]
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(256, (count, 1, size, size), dtype=torch.uint8, generator=generator)
    return ImageData(list(images.numpy()), None, 1, size)
