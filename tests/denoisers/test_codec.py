"""Images as the data of a process, and back."""

import pytest
import torch
from helpers.latent_networks import tiny_dit_pipeline, tiny_vae

from diffusers_progdistill.denoisers.codec import LatentCodec, PixelCodec


def draw_images(channels, side=8):
    return torch.randint(0, 256, (3, channels, side, side), generator=torch.Generator().manual_seed(0)).byte()


def test_pixels_are_divided():
    images, codec = draw_images(3), PixelCodec()
    data = codec.encode(images)
    assert torch.equal(data, images.float() / 127.5 - 1) and data.dtype == torch.float32
    assert codec.data_shape((3, 8, 8)) == tuple(data.shape[1:])
    torch.testing.assert_close(codec.decode(data) * 255, images.float(), rtol=0, atol=1e-4)
    assert codec.decode(torch.tensor([-1.5, 1.5])).tolist() == [0, 1]


@pytest.mark.parametrize("channels, side", [(1, 8), (3, 16)])
def test_shapes_of_latents(channels, side):
    codec, images = LatentCodec(tiny_vae(channels)), draw_images(channels, side)
    latents = codec.encode(images)
    assert codec.data_shape((channels, side, side)) == tuple(latents.shape[1:]) == (4, side // 2, side // 2)
    assert codec.decode(latents).shape == images.shape
    assert latents.dtype == torch.float32 and not latents.requires_grad


def test_the_stock_pipeline_decodes_what_was_encoded():
    """Its last latents are replaced by those of images: what it makes of them is the autoencoder's own answer."""
    pipeline, images = tiny_dit_pipeline(), draw_images(1)
    pipeline.vae.register_to_config(scaling_factor=0.37)
    codec = LatentCodec(pipeline.vae)
    latents = codec.encode(images)

    def step(output, timestep, sample):
        return type(finished)(prev_sample=latents)

    finished = pipeline.scheduler.step(latents, _first_time(pipeline), latents)
    pipeline.scheduler.step = step
    pipeline.set_progress_bar_config(disable=True)
    made = pipeline([0, 0, 0], guidance_scale=1.0, num_inference_steps=1, output_type="pt").images
    with torch.no_grad():
        mean = pipeline.vae.encode(images.float() / 127.5 - 1).latent_dist.mode()
        expected = (pipeline.vae.decode(mean).sample / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(codec.decode(latents), made, rtol=0, atol=1e-6)
    assert made.std() > 0.01


def _first_time(pipeline):
    pipeline.scheduler.set_timesteps(1)
    return pipeline.scheduler.timesteps[0]


def test_latents_of_a_shifted_autoencoder():
    """As the pipelines that shift encode: less the shift, times the factor."""
    images, vae = draw_images(3), tiny_vae(scaling_factor=0.5, shift_factor=0.25)
    with torch.no_grad():
        mean = vae.encode(images.float() / 127.5 - 1).latent_dist.mode()
        expected = (vae.decode(mean).sample / 2 + 0.5).clamp(0, 1)
    codec = LatentCodec(vae)
    torch.testing.assert_close(codec.encode(images), (mean - 0.25) * 0.5)
    torch.testing.assert_close(codec.decode(codec.encode(images)), expected, rtol=0, atol=1e-6)
