"""What the conversion stage asks of a teacher, against closed forms; nothing is trained here."""

import math

import pytest
import torch
from diffusers import DDPMScheduler

from diffusers_progdistill import ProgressiveDistillationScheduler
from diffusers_progdistill.denoisers.base import Denoiser
from diffusers_progdistill.objectives.base import Batch
from diffusers_progdistill.objectives.conversion import EPSILON_LOG_SNR_MIN, NOISY_END_WEIGHT, ConversionObjective
from diffusers_progdistill.processes.base import NoiseLevel, log_snr
from diffusers_progdistill.processes.betas import cosine_angle, time_to_timestep
from diffusers_progdistill.processes.prediction import to_sample


def schedule_of(**options):
    return ProgressiveDistillationScheduler(**options).schedule


def make_objective(network, schedule, kind, guidance_scale=1.0, student_kind="v_prediction"):
    null = {"class_labels": torch.tensor([7])}
    teacher = Denoiser(
        network, schedule, kind, has_classes=True, null_conditioning=null, guidance_scale=guidance_scale
    )
    student = Denoiser(None, schedule_of(), student_kind)
    return ConversionObjective(student, "truncated_snr", teacher)


SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid")


@pytest.mark.parametrize("num_train_timesteps", [1000, 400])
@pytest.mark.parametrize("beta_schedule", SCHEDULES)
def test_a_teacher_is_asked_at_the_timestep_of_the_same_log_snr(beta_schedule, num_train_timesteps):
    betas = DDPMScheduler(num_train_timesteps, beta_schedule=beta_schedule).betas.double()
    log_alphas_cumprod = torch.log1p(-betas).cumsum(0)
    expected = log_alphas_cumprod - torch.log(-torch.expm1(log_alphas_cumprod))  # log-SNR, in float64
    schedule = schedule_of(beta_schedule=beta_schedule, num_train_timesteps=num_train_timesteps)
    index = torch.arange(num_train_timesteps)
    angle = torch.atan(torch.exp(-expected / 2))
    assert (schedule.network_times(angle) - index).abs().max() < 2e-2
    # Between two indices it is between them, and rises with the noise.
    middle = schedule.network_times((angle[1:] + angle[:-1]) / 2)
    assert torch.all((middle > index[:-1]) & (middle < index[1:]))
    # Out of its range, its ends.
    ends = schedule.network_times(torch.tensor([1e-5, math.pi / 2 - 1e-6]))
    assert ends.tolist() == [0.0, num_train_timesteps - 1.0]


def test_the_canonical_schedule_is_asked_at_its_own_timesteps():
    time = torch.linspace(0.01, 1, 50, dtype=torch.float64)
    asked = schedule_of().network_times(cosine_angle(time))
    assert torch.allclose(asked.double(), time_to_timestep(time), atol=1e-3)


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction", "sample_epsilon"])
def test_an_optimal_teacher_of_any_type_gives_the_optimal_x(kind):
    # Data N(0, 1): x = alpha z is optimal, which makes epsilon = sigma z and v = 0.
    schedule = schedule_of(beta_schedule="linear", num_train_timesteps=1000)

    def network(z, timestep, return_dict):
        assert timestep.dtype == torch.float32
        angle = schedule.angles(timestep)[:, None, None, None]
        x, epsilon = torch.cos(angle) * z, torch.sin(angle) * z
        outputs = {"epsilon": epsilon, "sample": x, "v_prediction": 0 * z}
        return (outputs.get(kind, torch.cat([x, epsilon], 1)),)

    objective = make_objective(network, schedule, kind)
    angle = torch.linspace(0.02, objective.max_angle, 40, dtype=torch.float64)
    z = torch.randn(40, 1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    level = NoiseLevel(angle, schedule.network_times(angle))
    x, guidance = objective.teacher.predict_x0_and_guidance(z, level, {})
    assert guidance == 0
    assert (x - torch.cos(angle)[:, None, None, None] * z).abs().max() < 1e-4
    # And is all of the target, wherever the teacher knows something.
    far = Batch(torch.full_like(z, 1e6), {}, None, None)
    assert torch.equal(objective.make_target(z, angle, far), x)


def test_noisier_than_the_teacher_knows_the_data_are_the_target_and_cleaner_its_first_index():
    schedule = schedule_of(beta_schedule="linear", num_train_timesteps=400)
    asked = []

    def network(z, timestep, return_dict):
        asked.append(timestep)
        return (torch.zeros_like(z),)

    objective = make_objective(network, schedule, "sample")
    data, z = torch.full((4, 1, 2, 2), 5.0), torch.randn(4, 1, 2, 2)
    angle = torch.tensor([1e-3, 0.5, schedule.max_angle - 1e-3, schedule.max_angle + 1e-3])
    target = objective.make_target(z, angle, Batch(data, {}, None, None))
    assert target[:3].abs().max() == 0 and torch.equal(target[3], data[3])
    assert asked[0][0] == 0 and asked[0][3] == 399
    # epsilon says little about x where alpha is small.
    epsilon = make_objective(network, schedule_of(beta_schedule="linear", num_train_timesteps=1000), "epsilon")
    assert log_snr(torch.tensor(epsilon.max_angle)).item() == pytest.approx(EPSILON_LOG_SNR_MIN, abs=1e-3)


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_guidance_is_that_of_meng_et_al_in_one_doubled_batch(kind):
    schedule = schedule_of(beta_schedule="scaled_linear", num_train_timesteps=1000)
    calls = []

    def network(z, timestep, class_labels, return_dict=False):
        calls.append(len(z))
        return (z * 0.5 + class_labels.view(-1, 1, 1, 1) * 0.1,)

    z = torch.randn(3, 1, 2, 2, dtype=torch.float64)
    angle, labels = torch.tensor([0.3, 0.7, 1.2], dtype=torch.float64), torch.tensor([1, 2, 3])
    g = 2.5
    objective = make_objective(network, schedule, kind, g)
    target = objective.make_target(z, angle, Batch(z, {"class_labels": labels}, None, None))
    alpha, sigma = torch.cos(angle).view(-1, 1, 1, 1), torch.sin(angle).view(-1, 1, 1, 1)
    x = [to_sample(network(z, None, c)[0], z, alpha, sigma, kind) for c in (labels, torch.full((3,), 7))]
    assert (target - (g * x[0] - (g - 1) * x[1])).abs().max() < 1e-12
    assert calls[0] == 6


@pytest.mark.parametrize("kind", ["v_prediction", "sample"])
@pytest.mark.parametrize("teacher_kind", ["epsilon", "v_prediction"])
def test_an_epsilon_teacher_is_trusted_with_snr_but_for_a_little(kind, teacher_kind):
    schedule = schedule_of(beta_schedule="linear", num_train_timesteps=1000)
    objective = make_objective(None, schedule, teacher_kind, student_kind=kind)
    angle = torch.linspace(0.05, math.pi / 2 - 1e-4, 60, dtype=torch.float64)
    snr = torch.tan(angle) ** -2
    expected = snr.clamp(min=1)
    if teacher_kind == "epsilon":
        expected = torch.minimum(expected, torch.maximum(snr, NOISY_END_WEIGHT * (snr + 1)))
    # As a weight of the error of x; an error of v is sigma times smaller.
    got = objective.weight(angle) / (torch.sin(angle) ** 2 if kind == "v_prediction" else 1)
    assert torch.allclose(got, expected, rtol=1e-9)
