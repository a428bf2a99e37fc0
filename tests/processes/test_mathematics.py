"""The formulas against float64 oracles written from the paper."""

import math

import pytest
import torch

from diffusers_progdistill.processes.base import add_noise, get_velocity, log_snr
from diffusers_progdistill.processes.betas import BetaProcess, canonical_betas, compute_angles, cosine_angle
from diffusers_progdistill.processes.clipping import hidden_error
from diffusers_progdistill.processes.prediction import PREDICTION_TYPES, from_sample, output_slope, to_sample
from diffusers_progdistill.processes.weighting import WEIGHTINGS, loss_weight, pseudo_huber_loss, weighted_loss


def angles(dtype=torch.float64):
    return cosine_angle(torch.linspace(0, 1, 101, dtype=torch.float64)).to(dtype)


def test_schedule_is_the_papers_cosine_with_log_snr_clipped_at_20():
    ends = log_snr(cosine_angle(torch.tensor([0.0, 1.0], dtype=torch.float64)))
    torch.testing.assert_close(ends, torch.tensor([20.0, -20.0], dtype=torch.float64), atol=1e-6, rtol=0)
    time = torch.linspace(0, 1, 50, dtype=torch.float64)
    assert (torch.cos(cosine_angle(time)) - torch.cos(math.pi * time / 2)).abs().max() < 5e-5


def test_betas_hold_the_schedule_exactly():
    betas = canonical_betas(1024)
    time = torch.arange(1, 1025, dtype=torch.float64) / 1024
    assert (compute_angles(betas) - cosine_angle(time)).abs().max() < 1e-12
    assert BetaProcess(betas, 1024).is_canonical
    assert BetaProcess([torch.tensor(b, dtype=torch.float32).item() for b in betas], 1024).is_canonical
    assert not BetaProcess([0.01] * 1024, 1024).is_canonical


def test_angle_of_a_table_is_exact_at_entries_and_monotonous_between():
    schedule = BetaProcess(torch.linspace(1e-4, 0.02, 100).tolist(), 100)
    table = torch.arange(100, dtype=torch.float64)
    alphas_cumprod = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 100).double(), 0)
    torch.testing.assert_close(schedule.angles(table).cos().square(), alphas_cumprod, atol=1e-12, rtol=0)
    fine = schedule.angles(torch.linspace(-1, 99, 999, dtype=torch.float64))
    assert (fine.diff() > 0).all() and fine[0] == 0
    assert schedule.angle(41.25) == pytest.approx(schedule.angles(torch.tensor([41.25])).item(), abs=1e-12)


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction", "flow", "edm"])
def test_conversions_recover_the_image(prediction_type):
    x, noise = torch.randn(2, 101, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).unbind()
    angle = angles()[:, None]
    alpha, sigma = angle.cos(), angle.sin()
    z = add_noise(x, noise, angle)
    velocity = get_velocity(x, noise, angle)
    truths = {"epsilon": noise, "sample": x, "v_prediction": velocity, "flow": noise - x, "edm": -velocity}
    truth = truths[prediction_type]
    tolerance = 1e-10 / alpha.min().item() if prediction_type == "epsilon" else 1e-12
    torch.testing.assert_close(to_sample(truth, z, alpha, sigma, prediction_type), x, atol=tolerance, rtol=0)
    torch.testing.assert_close(from_sample(x, z, alpha, sigma, prediction_type), truth, atol=1e-10, rtol=0)


def test_two_heads_merge_to_the_right_head_at_each_end():
    x, noise = torch.randn(2, 2, 1, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).unbind()
    wrong = torch.full_like(x, 7.0)
    for angle, output in [(math.pi / 2, torch.cat([x, wrong], 1)), (0.0, torch.cat([wrong, noise], 1))]:
        alpha, sigma = math.cos(angle), math.sin(angle)
        merged = to_sample(output, alpha * x + sigma * noise, alpha, sigma, "sample_epsilon")
        torch.testing.assert_close(merged, x, atol=1e-12, rtol=0)
    # In between, right heads give the right image.
    merged = to_sample(torch.cat([x, noise], 1), 0.6 * x + 0.8 * noise, 0.6, 0.8, "sample_epsilon")
    torch.testing.assert_close(merged, x, atol=1e-12, rtol=0)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_weights_are_finite_and_weight_the_error_of_x(weighting, prediction_type):
    single = loss_weight(angles(torch.float32), weighting, prediction_type)
    assert torch.isfinite(single).all() and (single >= 0).all()
    angle = angles()[1:-1]
    snr = torch.exp(log_snr(angle))
    of_x = {
        "snr": snr,
        "truncated_snr": snr.clamp(min=1),
        "snr_plus_one": snr + 1,
        "constant": torch.ones_like(snr),
    }[weighting]
    z, x_hat, x = torch.randn(3, 99, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).unbind()
    outputs = [from_sample(v, z, angle.cos(), angle.sin(), prediction_type) for v in (x_hat, x)]
    ours = loss_weight(angle, weighting, prediction_type) * (outputs[0] - outputs[1]) ** 2
    torch.testing.assert_close(ours, of_x * (x_hat - x) ** 2, rtol=1e-8, atol=1e-12)


def test_loss_is_the_mean_over_images_of_the_weighted_mean_over_pixels():
    error = torch.tensor([[[[1.0, 3.0]]], [[[2.0, 2.0]]]])
    assert weighted_loss(error, torch.tensor([1.0, 10.0])).item() == pytest.approx((5 + 40) / 2)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_a_finished_image_is_judged_as_it_is_shown(prediction_type):
    generator = torch.Generator().manual_seed(0)
    z, target = torch.randn(2, 200, 1, 2, 2, dtype=torch.float64, generator=generator).unbind()
    angle = torch.rand(200, 1, 1, 1, dtype=torch.float64, generator=generator) + 0.3
    alpha, sigma = angle.cos(), angle.sin()
    # Errors of all sizes, on both sides of the range.
    x = target + 0.2 * torch.randn(target.shape, dtype=torch.float64, generator=generator)
    output = from_sample(x, z, alpha, sigma, prediction_type).requires_grad_()
    error = output - from_sample(target, z, alpha, sigma, prediction_type)
    # Two heads are merged by then.
    is_x = prediction_type == "sample_epsilon"
    hidden = hidden_error(output if is_x else to_sample(output, z, alpha, sigma, prediction_type), target, 0.7)
    error = error - output_slope(alpha, sigma, prediction_type) * hidden
    shown, shown_target = x.clamp(-1, 1), target.clamp(-1, 1)
    may_hide = (shown - shown_target).abs() <= 0.1
    kept = torch.where(may_hide, shown, x)
    # Black and white that are not so yet are pulled as if to 0.7 beyond.
    should_hide = (target != shown_target) & (shown != shown_target)
    aim = torch.where(should_hide, 1.7 * target.sign(), shown_target)
    expected = from_sample(kept, z, alpha, sigma, prediction_type) - from_sample(aim, z, alpha, sigma, prediction_type)
    torch.testing.assert_close(error, expected, atol=1e-12, rtol=1e-12)
    error.sum().backward()
    # No pull where what is hidden may stay so, and a full one everywhere else.
    is_hidden = may_hide & (x.abs() > 1)
    assert is_hidden.sum() > 20 and ((x.abs() > 1) & ~may_hide).sum() > 10 and should_hide.sum() > 20
    assert (output.grad[is_hidden].abs() < 1e-12).all()
    torch.testing.assert_close(output.grad[~is_hidden], torch.ones_like(output.grad[~is_hidden]))


def test_pseudo_huber_loss_is_the_square_of_small_errors_and_the_distance_of_large_ones():
    generator = torch.Generator().manual_seed(0)
    error, c = torch.randn(5, 2, 3, 3, generator=generator), 0.01
    weight = torch.rand(5, generator=generator)
    distance = (weight.double() * error.double().square().mean((1, 2, 3))).sqrt()
    exact = ((distance**2 + c**2).sqrt() - c).mean()
    assert pseudo_huber_loss(error, weight, c).item() == pytest.approx(exact.item(), rel=1e-6)
    assert pseudo_huber_loss(error, weight, 1e-6).item() == pytest.approx(distance.mean().item(), rel=1e-4)
    square = (distance**2).mean().item() / (2 * 100)
    assert pseudo_huber_loss(error, weight, 100.0).item() == pytest.approx(square, rel=1e-2)


def test_pseudo_huber_loss_pulls_at_every_image_alike():
    error = torch.tensor([[[[1.0, 3.0]]], [[[100.0, 300.0]]], [[[0.0, 0.0]]]], requires_grad=True)
    pseudo_huber_loss(error, torch.tensor([1.0, 7.0, 1.0]), 1e-6).backward()
    pulls = error.grad.flatten(1).norm(dim=1)
    # An exact image does not pull; the root of the weight does.
    assert (pulls[1] / pulls[0]).item() == pytest.approx(7**0.5) and pulls[2] == 0


@pytest.mark.parametrize(
    "call", [lambda: loss_weight(angles(), "nope", "epsilon"), lambda: to_sample(1, 1, 1, 1, "nope")]
)
def test_unknown_names_are_refused(call):
    with pytest.raises(ValueError, match="must be one of"):
        call()
