"""Networks of a few thousand parameters that denoise latents, and stock pipelines made of them."""

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel


def tiny_vae(channels=3):
    """An autoencoder that halves the side of an image."""
    torch.manual_seed(1)
    return AutoencoderKL(
        in_channels=channels,
        out_channels=channels,
        latent_channels=4,
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        sample_size=8,
    ).eval()


def tiny_dit(**options):
    """A transformer of latents of 4x4, with a learned variance and dropped labels."""
    torch.manual_seed(2)
    return DiTTransformer2DModel(
        sample_size=4,
        in_channels=4,
        out_channels=8,
        patch_size=2,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        num_embeds_ada_norm=1000,
        **options,
    ).eval()


def dit_teacher(folder, names=None, channels=1, **scheduler):
    """A stock `DiTPipeline` of random weights on linear betas, in a folder."""
    options = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear", "clip_sample": False}
    pipeline = DiTPipeline(tiny_dit(), tiny_vae(channels), DDIMScheduler(**{**options, **scheduler}), id2label=names)
    pipeline.save_pretrained(folder)
    return str(folder)
