"""Invariants 1-3: the student lands where the teacher lands, a perfect student has no loss, and the Gaussian case."""

import math
from functools import partial

import pytest
import torch

from diffusers_progdistill import ProgressiveDistillationScheduler
from diffusers_progdistill.denoisers.base import Denoiser
from diffusers_progdistill.objectives.base import Batch, Examples
from diffusers_progdistill.objectives.distillation import DistillationLoss, DistillationObjective
from diffusers_progdistill.processes.betas import (
    ANGLE_MIN,
    ANGLE_RANGE,
    BetaProcess,
    canonical_betas,
    cosine_angle,
)
from diffusers_progdistill.processes.prediction import from_sample
from diffusers_progdistill.processes.targets import TargetGrid, teacher_target


CANONICAL = BetaProcess(canonical_betas(), 1024)
STEPS = [1, 2, 3, 4, 6, 8, 16, 48, 64, 128, 256, 512, 1024, 2048, 4096]


def teacher(z, timestep):
    """A nonlinear teacher of v, different at every timestep."""
    t = (timestep[:, None, None, None] + 1) / 1024
    return torch.tanh(z * (1 + t)) + torch.sin(7 * t + z)


def predict_x0(z, level, network=teacher):
    """x of a network that predicts v, as the paper writes it."""
    angle = level.angle[:, None, None, None]
    return angle.cos() * z - angle.sin() * network(z, level.time)


def ddim(z, x, angle, angle_next):
    """Algorithm 2's DDIM step as the paper writes it."""
    a, s, an, sn = angle.cos(), angle.sin(), angle_next.cos(), angle_next.sin()
    return an * x + (sn / s) * (z - a * x)


def exact_angles(num_steps):
    """phi at t, t' and t'' for i = 1 ... N, with clean data at the end: from the paper, not from the package."""
    i = torch.arange(1, num_steps + 1, dtype=torch.float64)
    t, mid, end = i / num_steps, (i - 0.5) / num_steps, (i - 1) / num_steps
    angles = [ANGLE_RANGE * v + ANGLE_MIN for v in (t, mid, end)]
    angles[2][0] = 0.0
    return t, mid, [a[:, None, None, None] for a in angles]


def teacher_steps(z, num_steps, factor):
    i = torch.arange(1, num_steps + 1, dtype=torch.float64)
    for part in range(factor):
        t, end = (i - part / factor) / num_steps, (i - (part + 1) / factor) / num_steps
        angle, angle_end = (ANGLE_RANGE * v + ANGLE_MIN for v in (t, end))
        angle_end[end == 0] = 0.0
        angle, angle_end = angle[:, None, None, None], angle_end[:, None, None, None]
        z = ddim(z, angle.cos() * z - angle.sin() * teacher(z, 1024 * t - 1), angle, angle_end)
    return z


def two_teacher_steps(z, num_steps):
    t, mid, (angle, angle_mid, angle_end) = exact_angles(num_steps)
    x = angle.cos() * z - angle.sin() * teacher(z, 1024 * t - 1)
    z_mid = ddim(z, x, angle, angle_mid)
    x = angle_mid.cos() * z_mid - angle_mid.sin() * teacher(z_mid, 1024 * mid - 1)
    return ddim(z_mid, x, angle_mid, angle_end)


@pytest.mark.parametrize("num_steps", STEPS)
def test_one_student_step_lands_where_two_teacher_steps_land(num_steps):
    z = torch.randn(num_steps, 1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(num_steps))
    target = teacher_target(predict_x0, z, TargetGrid.create(CANONICAL, num_steps))
    _, _, (angle, _, angle_end) = exact_angles(num_steps)
    landed = ddim(z, target, angle, angle_end)
    assert (landed - two_teacher_steps(z, num_steps)).abs().max() <= 1e-12


@pytest.mark.parametrize("factor", [4, 16])
@pytest.mark.parametrize("num_steps", STEPS)
def test_one_step_of_a_longer_stage_lands_where_as_many_teacher_steps_land(num_steps, factor):
    z = torch.randn(num_steps, 1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(num_steps))
    grid = TargetGrid.create(CANONICAL, num_steps, factor)
    target = teacher_target(predict_x0, z, grid)
    _, _, (angle, _, angle_end) = exact_angles(num_steps)
    landed = ddim(z, target, angle, angle_end)
    assert (landed - teacher_steps(z, num_steps, factor)).abs().max() <= 1e-12


def midpoint_steps(z, num_steps, pairs):
    """Steps of the midpoint rule: DDIM over each, with x from where a DDIM step leads half as far."""
    i = torch.arange(1, num_steps + 1, dtype=torch.float64)
    for part in range(pairs):
        t, mid, end = (i - (part + k) / pairs for k in (0, 0.5, 1))
        angle, angle_mid, angle_end = (ANGLE_RANGE * v / num_steps + ANGLE_MIN for v in (t, mid, end))
        angle_end[end == 0] = 0.0
        angle, angle_mid, angle_end = (a[:, None, None, None] for a in (angle, angle_mid, angle_end))
        x = angle.cos() * z - angle.sin() * teacher(z, 1024 * t / num_steps - 1)
        middle = ddim(z, x, angle, angle_mid)
        x = angle_mid.cos() * middle - angle_mid.sin() * teacher(middle, 1024 * mid / num_steps - 1)
        z = ddim(z, x, angle, angle_end)
    return z


@pytest.mark.parametrize("factor", [2, 4, 16])
@pytest.mark.parametrize("num_steps", STEPS)
def test_one_step_lands_where_the_midpoint_rule_lands(num_steps, factor):
    z = torch.randn(num_steps, 1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(num_steps))
    grid = TargetGrid.create(CANONICAL, num_steps, factor, midpoint=True)
    target = teacher_target(predict_x0, z, grid.at(torch.arange(num_steps)))
    _, _, (angle, _, angle_end) = exact_angles(num_steps)
    landed = ddim(z, target, angle, angle_end)
    assert (landed - midpoint_steps(z, num_steps, factor // 2)).abs().max() <= 1e-12


@pytest.mark.parametrize("midpoint, order", [(False, 1), (True, 2)])
@pytest.mark.parametrize("spread", [0.3, 1.7])
def test_the_orders_of_the_two_rules(midpoint, order, spread):
    """On Gaussian data the ODE is known: z scales with the standard deviation of its time."""

    def scale(angle):
        return (spread**2 * angle.cos() ** 2 + angle.sin() ** 2).sqrt()

    def gaussian(z, timestep):
        angle = (ANGLE_RANGE * (timestep + 1) / 1024 + ANGLE_MIN)[:, None, None, None]
        # v = alpha eps - sigma x, the mean of both given z.
        return angle.cos() * angle.sin() * (1 - spread**2) / scale(angle) ** 2 * z

    errors = []
    for factor in (16, 32, 64):
        # The interval that ends in clean data makes a jump over the last bit of noise: the others count.
        rows = TargetGrid.create(CANONICAL, 4, factor, midpoint).at(torch.arange(1, 4))
        angle, angle_end = (a[1:] for a in exact_angles(4)[2][::2])
        z = torch.ones(3, 1, 1, 1, dtype=torch.float64)
        landed = ddim(z, teacher_target(partial(predict_x0, network=gaussian), z, rows), angle, angle_end)
        errors.append((landed - scale(angle_end) / scale(angle)).abs().max().item())
    for coarse, fine in zip(errors, errors[1:]):
        assert 0.85 * 2**order <= coarse / fine <= 1.15 * 2**order


@pytest.mark.parametrize("num_steps", [2, 4, 64])
def test_target_is_the_papers_inversion(num_steps):
    z = torch.randn(num_steps, 1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    target = teacher_target(predict_x0, z, TargetGrid.create(CANONICAL, num_steps))
    _, _, (angle, _, end) = exact_angles(num_steps)
    ratio = end.sin() / angle.sin()
    inverted = (two_teacher_steps(z, num_steps) - ratio * z) / (end.cos() - ratio * angle.cos())
    torch.testing.assert_close(target, inverted, atol=1e-9, rtol=0)


def make_objective(num_steps, kind, loss, dtype=torch.float64):
    network = lambda z, time, return_dict: (teacher(z, time),)  # noqa: E731
    grid = TargetGrid.create(CANONICAL, num_steps).to(dtype=dtype)
    student = Denoiser(None, CANONICAL, kind)
    return DistillationObjective(student, Denoiser(network, CANONICAL, "v_prediction"), grid, loss)


@pytest.mark.parametrize("clip_margin", [None, 0.7])
@pytest.mark.parametrize("prediction_type", ["v_prediction", "sample", "epsilon"])
@pytest.mark.parametrize("num_steps", [1, 2, 3, 8, 64, 4096])
def test_a_student_equal_to_the_composite_has_no_loss(num_steps, prediction_type, clip_margin):
    # epsilon at t = 1 amplifies rounding by 2e4 in x, but its own loss is on epsilon and stays small.
    weighting = "snr" if prediction_type == "epsilon" else "truncated_snr"
    objective = make_objective(num_steps, prediction_type, DistillationLoss(weighting, clip_margin=clip_margin))
    shape, generator = (num_steps, 1, 1, 1), torch.Generator().manual_seed(1)
    images, noise = (torch.randn(shape, dtype=torch.float64, generator=generator) for _ in range(2))
    uniform = (torch.arange(num_steps, dtype=torch.float64) + 0.5) / num_steps
    _, _, (angle, _, end) = exact_angles(num_steps)

    def student(z, timestep, return_dict):
        landed = two_teacher_steps(z, num_steps)
        x = (landed - (end.sin() / angle.sin()) * z) / (torch.sin(angle - end) / angle.sin())
        return (from_sample(x, z, angle.cos(), angle.sin(), prediction_type),)

    losses = objective.compute_losses(student, objective.make_examples(Batch(images, {}, uniform, noise)))
    assert losses.keys() == {"loss"} and losses["loss"].dtype == torch.float64
    assert losses["loss"].item() <= 1e-24


@pytest.mark.parametrize("num_steps", [1, 2, 8])
def test_only_the_last_step_is_judged_by_the_finished_image(num_steps):
    """A student that is off beyond the range of pixels alone, at one grid point after the other."""
    losses = []
    for clip_margin in (None, 0.7):
        loss = DistillationLoss("constant", clip_margin=clip_margin)
        objective = make_objective(num_steps, "sample", loss, torch.float32)
        student = lambda z, time, return_dict: (torch.full_like(z, 1.25),)  # noqa: E731
        rows = []
        for i, angle in enumerate(objective.grid.angles[:, :1]):
            z, target = torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 1.5)
            examples = Examples(z, angle, angle, target, torch.tensor([i == 0]), {})
            rows.append(objective.compute_losses(student, examples)["loss"])
        losses.append(torch.stack(rows))
    assert torch.equal(losses[0], torch.full((num_steps,), 0.0625))
    assert losses[1][0] == 0 and torch.equal(losses[1][1:], losses[0][1:])


@pytest.mark.parametrize("num_steps", [1, 2, 3, 4, 8, 32, 256, 1024])
def test_gaussian_data_shrink_by_the_closed_form(num_steps):
    scheduler = ProgressiveDistillationScheduler()
    scheduler.set_timesteps(num_steps)
    z = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    for timestep in scheduler.timesteps:
        z = scheduler.step(torch.zeros_like(z), timestep, z).prev_sample
    a, b = ANGLE_RANGE, ANGLE_MIN
    exact = math.cos(a / num_steps) ** (num_steps - 1) * math.cos(a / num_steps + b)
    assert z.item() == pytest.approx(exact, abs=1e-12)
    assert z.item() == pytest.approx(math.cos(math.pi / (2 * num_steps)) ** num_steps, abs=1e-4)
    assert cosine_angle(1.0) == pytest.approx(math.pi / 2, abs=1e-4)
