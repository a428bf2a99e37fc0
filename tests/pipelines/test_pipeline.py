"""The pipeline's contract and the stored form."""

import json

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from diffusers import DDIMPipeline, DDIMScheduler, DiffusionPipeline
from helpers.networks import tiny_unet

from diffusers_progdistill import ProgressiveDistillationPipeline, ProgressiveDistillationScheduler
from diffusers_progdistill.pipelines.export import attach_metadata


def make(unet=None, steps=4, **config):
    scheduler = ProgressiveDistillationScheduler(**config)
    if steps is not None:
        scheduler = attach_metadata(scheduler, num_inference_steps=steps)
    pipeline = ProgressiveDistillationPipeline(unet or tiny_unet(), scheduler)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def images(pipeline, count=3, **options):
    pipeline.set_progress_bar_config(disable=True)
    options = {"generator": torch.Generator().manual_seed(0), "output_type": "np", **options}
    return pipeline(batch_size=count, **options).images


def test_output_types_and_tuple():
    pipeline = make()
    array, tensor, pictures = (images(pipeline, output_type=t) for t in ("np", "pt", "pil"))
    assert array.shape == (3, 8, 8, 1) and tensor.shape == (3, 1, 8, 8) and pictures[0].size == (8, 8)
    np.testing.assert_allclose(array, tensor.permute(0, 2, 3, 1).numpy())
    assert 0 <= array.min() and array.max() <= 1
    np.testing.assert_array_equal(
        pipeline(3, generator=torch.manual_seed(0), output_type="np", return_dict=False)[0], array
    )
    assert pipeline.num_timesteps == 4


def test_progress_is_shown_unless_it_is_switched_off(capsys):
    pipeline = make()
    pipeline(generator=torch.manual_seed(0))
    assert not capsys.readouterr().err
    pipeline.set_progress_bar_config(disable=False)
    pipeline(generator=torch.manual_seed(0))
    assert "4/4" in capsys.readouterr().err


def test_generators_are_used_as_ddim_pipeline_uses_them():
    unet = tiny_unet()
    pipeline = make(unet)
    stock = DDIMPipeline(unet, DDIMScheduler.from_config(pipeline.scheduler.config))
    for generators in (
        lambda: torch.Generator().manual_seed(3),
        lambda: [torch.Generator().manual_seed(k) for k in range(3)],
    ):
        for eta in (0.0, 0.5):
            a = images(pipeline, generator=generators(), eta=eta)
            b = images(stock, generator=generators(), eta=eta, num_inference_steps=4)
            np.testing.assert_allclose(a, b, atol=1e-4)


def test_latents_are_the_noise():
    pipeline = make()
    noise = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(images(pipeline), images(pipeline, latents=noise))


def test_callback_sees_and_replaces_latents():
    pipeline, seen = make(), []

    def callback(pipe, index, timestep, kwargs):
        seen.append((index, timestep.item()))
        return {"latents": torch.zeros_like(kwargs["latents"])}

    out = images(pipeline, callback_on_step_end=callback)
    assert [i for i, _ in seen] == [0, 1, 2, 3] and seen[0][1] == 1023
    np.testing.assert_allclose(out, 0.5)


def test_bf16_keeps_fractional_timesteps():
    pipeline = make().to(torch.bfloat16)
    assert images(pipeline).dtype == np.float32
    reference = images(make())
    assert np.abs(images(pipeline) - reference).max() < 0.1


@pytest.mark.parametrize("labels", [3, [1, 2, 3], torch.tensor([1, 2, 3])])
def test_class_labels_round_trip_through_the_stored_form(labels, tmp_path):
    pipeline = make(tiny_unet(num_class_embeds=10))
    before = images(pipeline, class_labels=labels)
    pipeline.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["_class_name"] == "ProgressiveDistillationPipeline" and index["scheduler"][0] == "diffusers"
    for loader in (ProgressiveDistillationPipeline, DiffusionPipeline):
        again = loader.from_pretrained(tmp_path)
        assert isinstance(again, ProgressiveDistillationPipeline)
        np.testing.assert_array_equal(images(again, class_labels=labels), before)


@pytest.mark.parametrize("config, steps", [({"prediction_type": "sample_epsilon"}, 4), ({}, 3)])
def test_what_stock_cannot_sample_is_stored_under_our_class(config, steps, tmp_path):
    unet = tiny_unet(out_channels=2) if config else tiny_unet()
    pipeline = make(unet, steps, **config)
    pipeline.save_pretrained(tmp_path)
    again = DiffusionPipeline.from_pretrained(tmp_path)
    assert isinstance(again, ProgressiveDistillationPipeline) and again.num_trained_steps == steps
    np.testing.assert_array_equal(images(again), images(pipeline))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"class_labels": 1}, "no classes"),
        ({"generator": [torch.Generator()]}, "generators"),
        ({"latents": torch.zeros(1, 1, 4, 4)}, "latents"),
        ({"output_type": "gif"}, "output_type"),
        ({"callback_on_step_end_tensor_inputs": ["nope"]}, "callback"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        images(make(), **options)


def test_a_teacher_has_no_steps_and_a_conditional_model_needs_labels():
    with pytest.raises(ValueError, match="num_inference_steps"):
        images(make(steps=None))
    with pytest.raises(ValueError, match="class_labels"):
        images(make(tiny_unet(num_class_embeds=10)))
    with pytest.raises(ValueError, match=r"\[0, 9\]"):
        images(make(tiny_unet(num_class_embeds=10)), class_labels=10)


def test_offloaded_weights_are_elsewhere_when_the_noise_is_made():
    pipeline = make()
    whole = images(pipeline)
    cpu_offload(pipeline.unet, torch.device("cpu"))
    assert next(pipeline.unet.parameters()).device.type == "meta"
    np.testing.assert_array_equal(images(pipeline), whole)


def test_layerwise_casting_computes_in_its_own_precision():
    pipeline = make()
    pipeline.unet.enable_layerwise_casting(storage_dtype=torch.bfloat16, compute_dtype=torch.float32)
    assert images(pipeline, output_type="latent").dtype == torch.float32
