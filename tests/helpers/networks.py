"""Networks of a few thousand parameters, and teachers made of them."""

import json

import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel


def tiny_unet(size=8, channels=1, widths=(8,), **options):
    """A network of a few thousand parameters."""
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=size,
        in_channels=channels,
        out_channels=options.pop("out_channels", channels),
        block_out_channels=widths,
        layers_per_block=1,
        down_block_types=("DownBlock2D",) * len(widths),
        up_block_types=("UpBlock2D",) * len(widths),
        norm_num_groups=4,
        add_attention=False,
        **options,
    )
    return unet.eval()


def attention_unet():
    """A network with attention in its lowest blocks."""
    return UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        attention_head_dim=4,
    )


def stock_teacher(folder, unet=None, pipeline=DDPMPipeline, **scheduler):
    """A teacher of stock diffusers with random weights, in a folder."""
    pipeline(unet or tiny_unet(), DDPMScheduler(**scheduler)).save_pretrained(folder)
    return str(folder)


def small_network(folder):
    """The file that makes `train-teacher` train a network of a few thousand parameters."""
    path = folder / "unet.json"
    path.write_text(json.dumps(dict(tiny_unet().config)))
    return str(path)
