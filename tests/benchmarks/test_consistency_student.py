"""The rival of the benchmarks: what it learns and how it is sampled, on data whose answers are known."""

import importlib.util
import math
from pathlib import Path

import pytest
import torch
from helpers.networks import tiny_unet

from diffusers_progdistill import ProgressiveDistillationScheduler
from diffusers_progdistill.evaluation.sampling import generate
from diffusers_progdistill.objectives.base import Batch
from diffusers_progdistill.processes.betas import cosine_angle


PATH = Path(__file__).parents[2] / "benchmarks" / "quality" / "consistency_student.py"


@pytest.fixture(scope="module")
def rival():
    spec = importlib.util.spec_from_file_location("consistency_student", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def zero_v():
    """v of N(0, 1) data."""
    unet = tiny_unet().requires_grad_(False)
    torch.nn.init.zeros_(unet.conv_out.weight), torch.nn.init.zeros_(unet.conv_out.bias)
    return unet


def test_target_is_the_average_after_one_step_of_the_teacher(rival):
    objective = rival.ConsistencyObjective(zero_v(), zero_v(), "v_prediction", 1024)
    count = rival.GRID_STEPS
    images, noise = torch.randn(2, count, 1, 8, 8, generator=torch.Generator().manual_seed(0)).unbind()
    examples = objective.examples(Batch(images, None, (torch.arange(count) + 0.5) / count, noise))
    # DDIM keeps z but for cos(h), and x of the average is cos(phi') z.
    index = torch.arange(1, count + 1)
    angle, angle_next = cosine_angle(index / count), cosine_angle((index - 1) / count)
    scale = torch.where(index == 1, torch.cos(angle), torch.cos(angle_next) * torch.cos(angle - angle_next))
    torch.testing.assert_close(examples.target, scale[:, None, None, None] * examples.z, atol=1e-4, rtol=1e-4)
    assert torch.equal(examples.angle, angle)


def test_the_average_follows_the_student(rival):
    student = zero_v()
    objective = rival.ConsistencyObjective(zero_v(), student, "v_prediction", 1024)
    batch = Batch(torch.zeros(2, 1, 8, 8), None, torch.tensor([0.1, 0.9]), torch.ones(2, 1, 8, 8))
    objective.examples(batch)
    torch.nn.init.ones_(student.conv_out.bias)
    for update in (1, 2):
        objective.examples(batch)
        found = objective.average.conv_out.bias.item()
        assert found == pytest.approx(1 - rival.TARGET_DECAY**update, rel=1e-5)


@pytest.mark.parametrize("fresh", [True, False])
def test_its_samplers_make_what_the_formulas_say(rival, fresh):
    pipeline = rival.ConsistencyPipeline(zero_v(), ProgressiveDistillationScheduler())
    pipeline.fresh_noise = fresh
    images = generate(pipeline, 500, 2) * 2 - 1
    # x at t = 1 is nothing but cos(phi_1) z; half-way x is cos(phi) z'.
    half, begin = cosine_angle(0.5), cosine_angle(1.0)
    if fresh:
        deviation = math.cos(half) * math.hypot(math.cos(half) * math.cos(begin), math.sin(half))
    else:
        deviation = math.cos(half) * math.cos(begin - half)
    assert (images.abs() < 1).float().mean() > 0.9
    inside = math.erf(1 / deviation / math.sqrt(2))
    assert (images.abs() < 0.999).float().mean().item() == pytest.approx(inside, abs=0.01)
    assert images.abs().median().item() == pytest.approx(0.6745 * deviation, rel=0.03)
