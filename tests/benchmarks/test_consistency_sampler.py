"""The samplers of the consistency baseline, on data whose answers are known."""

import importlib.util
import math
from pathlib import Path

import pytest
import torch
from helpers.networks import tiny_unet

from diffusers_progdistill import ProgressiveDistillationScheduler
from diffusers_progdistill.evaluation.sampling import generate
from diffusers_progdistill.processes.betas import cosine_angle


PATH = Path(__file__).parents[2] / "benchmarks" / "quality" / "consistency_student.py"


@pytest.fixture(scope="module")
def baseline():
    spec = importlib.util.spec_from_file_location("consistency_student", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("fresh", [True, False])
def test_its_samplers_make_what_the_formulas_say(baseline, fresh):
    unet = tiny_unet().requires_grad_(False)
    # v of N(0, 1) data.
    torch.nn.init.zeros_(unet.conv_out.weight), torch.nn.init.zeros_(unet.conv_out.bias)
    pipeline = baseline.ConsistencyPipeline(unet, ProgressiveDistillationScheduler())
    pipeline.fresh_noise = fresh
    images = generate(pipeline, 500, 2) * 2 - 1
    # x at u = 1 is nothing but cos(phi_1) z; half-way x is cos(phi) z'.
    half, begin = cosine_angle(0.5), cosine_angle(1.0)
    if fresh:
        deviation = math.cos(half) * math.hypot(math.cos(half) * math.cos(begin), math.sin(half))
    else:
        deviation = math.cos(half) * math.cos(begin - half)
    assert (images.abs() < 1).float().mean() > 0.9
    inside = math.erf(1 / deviation / math.sqrt(2))
    assert (images.abs() < 0.999).float().mean().item() == pytest.approx(inside, abs=0.01)
    assert images.abs().median().item() == pytest.approx(0.6745 * deviation, rel=0.03)
