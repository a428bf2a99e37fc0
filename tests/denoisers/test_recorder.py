"""What a stock pipeline gives its network, and how it steps, found by calling it."""

import math

import pytest
import torch
from diffusers import CMStochasticIterativeScheduler, ConsistencyModelPipeline, DDIMPipeline, DDIMScheduler
from helpers.latent_networks import tiny_dit_pipeline
from helpers.networks import tiny_unet

from diffusers_progdistill.denoisers.recorder import ProbedStep, find_largest_error, probe_steps, record_call


LINEAR = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear", "clip_sample": False}


def ddim_pipeline(**scheduler):
    return DDIMPipeline(tiny_unet(), DDIMScheduler(**{**LINEAR, **scheduler}))


def consistency_pipeline():
    return ConsistencyModelPipeline(tiny_unet(num_class_embeds=10), CMStochasticIterativeScheduler())


# The pipeline, its network, and a call of two images.
CALLS = {
    "ddim": (ddim_pipeline, "unet", {"batch_size": 2}),
    "dit": (tiny_dit_pipeline, "transformer", {"class_labels": [3, 7], "guidance_scale": 4.0}),
    "dit, without guidance": (tiny_dit_pipeline, "transformer", {"class_labels": [3, 7], "guidance_scale": 1.0}),
    "consistency": (consistency_pipeline, "unet", {"batch_size": 2, "class_labels": [3, 7]}),
}


def generator():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("name", CALLS)
def test_a_recorded_call_is_the_pipelines_own(name):
    make, role, call = CALLS[name]
    pipeline = make()
    pipeline.set_progress_bar_config(disable=True)
    network, answers = getattr(pipeline, role), []
    hook = network.register_forward_hook(lambda module, args, output: answers.append(output))
    call = {**call, "num_inference_steps": 1}
    recorded = record_call(pipeline, role, generator=generator(), **call)
    assert answers == []
    pipeline(generator=generator(), **call)
    hook.remove()
    with torch.no_grad():
        replayed = network(**recorded)
    assert torch.equal(*(output[0] for output in (replayed, answers[0])))
    # The pipeline is as it was: its network answers itself.
    assert len(answers) == 1 and "forward" not in vars(network)


def test_a_recorded_call_holds_the_conditioning():
    pipeline = tiny_dit_pipeline()
    recorded = record_call(pipeline, "transformer", class_labels=[3, 7], guidance_scale=4.0, num_inference_steps=2)
    assert recorded["class_labels"].tolist() == [3, 7, 1000, 1000]
    assert recorded["hidden_states"].shape == (4, 4, 4, 4)


def ddim_steps(scheduler, num_steps, prediction_type):
    """The steps of DDIM on a `"trailing"` grid, from the scheduler's own table, which is of single precision."""
    alphas_cumprod = scheduler.alphas_cumprod.double()
    total, steps = len(alphas_cumprod), []
    for i in range(num_steps, 0, -1):
        time, end = total * i // num_steps - 1, total * (i - 1) // num_steps - 1
        alpha, sigma = alphas_cumprod[time].sqrt().item(), (1 - alphas_cumprod[time]).sqrt().item()
        alpha_end = alphas_cumprod[end].sqrt().item() if end >= 0 else 1.0
        sigma_end = math.sqrt(1 - alpha_end**2)
        if prediction_type == "epsilon":
            steps.append(ProbedStep(time, alpha_end / alpha, sigma_end - alpha_end * sigma / alpha))
        elif prediction_type == "sample":
            steps.append(ProbedStep(time, sigma_end / sigma, alpha_end - sigma_end * alpha / sigma))
        else:
            # x = alpha z - sigma v and eps = sigma z + alpha v.
            turn = alpha_end * alpha + sigma_end * sigma
            steps.append(ProbedStep(time, turn, sigma_end * alpha - alpha_end * sigma))
    return steps


@pytest.mark.parametrize("num_steps", [1, 2, 4, 8])
@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("name", ["ddim", "dit"])
def test_probed_steps_are_those_of_ddim(name, prediction_type, num_steps):
    make, role, call = CALLS[name]
    pipeline = make(timestep_spacing="trailing", prediction_type=prediction_type)
    pipeline.set_progress_bar_config(disable=True)
    probed = probe_steps(pipeline, role, num_steps, **call)
    expected = ddim_steps(pipeline.scheduler, num_steps, prediction_type)
    assert [step.time for step in probed] == [step.time for step in expected]
    for step, other in zip(probed, expected, strict=True):
        # Of epsilon at the noisiest time both are as large as 1 / alpha, 160.
        assert step.sample_factor == pytest.approx(other.sample_factor, rel=1e-6, abs=1e-6)
        assert step.output_factor == pytest.approx(other.output_factor, rel=1e-6, abs=1e-6)
    assert "step" not in vars(pipeline.scheduler) and "forward" not in vars(getattr(pipeline, role))


def test_other_steps_are_told_apart():
    pipeline = ddim_pipeline(timestep_spacing="trailing")
    steps = ddim_steps(pipeline.scheduler, 4, "epsilon")
    assert find_largest_error(steps, steps) == 0
    assert find_largest_error(steps, steps[1:]) == math.inf
    assert find_largest_error([steps[0], steps[1]._replace(output_factor=math.nan), *steps[2:]], steps) == math.inf
    for field, factor in (("time", 1.01), ("sample_factor", 1.01), ("output_factor", 1.01)):
        other = [steps[0], steps[1]._replace(**{field: getattr(steps[1], field) * factor}), *steps[2:]]
        assert find_largest_error(other, steps) > 1e-3
