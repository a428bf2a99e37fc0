"""Every sampler: its images depend on seed and number alone, and are those of a known distribution."""

import pytest
import torch
from diffusers import DDPMScheduler
from helpers.networks import tiny_unet

from diffusers_progdistill import ProgressiveDistillationPipeline, ProgressiveDistillationScheduler
from diffusers_progdistill.evaluation.samplers import SAMPLERS, SamplingOptions, make_scheduler
from diffusers_progdistill.evaluation.sampling import chunk_size, generate, sample_chunk


def teacher(**options):
    return ProgressiveDistillationPipeline(tiny_unet(), ProgressiveDistillationScheduler(**options))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_image_depends_on_its_seed_and_number_alone(sampler):
    whole = generate(teacher(), 520, 4, seed=3, sampler=sampler)
    assert whole.shape == (520, 1, 8, 8) and whole.isfinite().all() and chunk_size(teacher()) == 500
    assert torch.equal(generate(teacher(), 7, 4, seed=3, sampler=sampler), whole[:7])
    options = SamplingOptions(4, seed=3, sampler=sampler)
    assert torch.equal(sample_chunk(teacher(), options, 500, 500)[:20], whole[500:])
    assert not torch.equal(generate(teacher(), 7, 4, seed=4, sampler=sampler), whole[:7])


def test_stock_ddim_is_our_sampler():
    own, stock = (generate(teacher(), 20, 8, sampler=name) for name in ("progdistill", "ddim"))
    torch.testing.assert_close(own, stock, atol=1e-4, rtol=0)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_two_headed_teachers_and_classes(sampler):
    unet = tiny_unet(out_channels=2, num_class_embeds=3)
    pipeline = ProgressiveDistillationPipeline(
        unet, ProgressiveDistillationScheduler(prediction_type="sample_epsilon")
    )
    images = generate(pipeline, 6, 4, sampler=sampler)
    assert images.isfinite().all() and images.std() > 0


def test_ancestral_sampling_of_a_learned_variance_uses_its_own():
    scheduler = make_scheduler("ddpm", dict(DDPMScheduler(variance_type="learned_range").config))
    assert scheduler.config.variance_type == "fixed_small"


def gaussian_teacher():
    """v of N(0, 1) data is 0 everywhere, so that every sampler has a known answer."""
    unet = tiny_unet()
    torch.nn.init.zeros_(unet.conv_out.weight), torch.nn.init.zeros_(unet.conv_out.bias)
    return ProgressiveDistillationPipeline(unet, ProgressiveDistillationScheduler())


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_makes_the_gaussian(sampler):
    images = generate(gaussian_teacher(), 500, 64, sampler=sampler) * 2 - 1
    # Clamped to [-1, 1], N(0, 1) has variance 0.516.
    assert images.mean().abs() < 0.02 and abs(images.var().item() - 0.516) < 0.03
