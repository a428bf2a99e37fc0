"""Networks of a few thousand parameters that denoise latents, and stock pipelines made of them."""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel

from .chains import chain


def tiny_vae(channels=3, **options):
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
        **options,
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


def tiny_dit_pipeline(channels=1, **scheduler):
    """A stock `DiTPipeline` of random weights on linear betas."""
    options = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear", "clip_sample": False}
    return DiTPipeline(tiny_dit(), tiny_vae(channels), DDIMScheduler(**{**options, **scheduler}))


def dit_teacher(folder, names=None, channels=1, **scheduler):
    """The same in a folder, with the names of its classes as published models have them: in the index."""
    tiny_dit_pipeline(channels, **scheduler).save_pretrained(folder)
    if names is not None:
        edit_json(Path(folder, "model_index.json"), id2label={str(label): name for label, name in names.items()})
    return str(folder)


def dit_chain(teacher, folder, **options):
    """The config of a chain from 32 steps over 8 to 2."""
    options = {"start_steps": 32, "end_steps": 2, "stage_factor": 4, "class_column": "label", **options}
    return chain(teacher, folder, updates_per_stage=options.pop("updates_per_stage", 2), **options)


def edit_json(path, **values):
    """Change entries of a JSON file. It is a file of its own afterwards, whatever was linked to it."""
    content = {**json.loads(path.read_text()), **values}
    path.unlink()
    path.write_text(json.dumps(content))
