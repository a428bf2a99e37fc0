"""Every process is an angle: its own step is a rotation, and its own network sees and says what the table says."""

import math

import pytest
import torch
from helpers.noise_processes import (
    CASES,
    PREDICTION_TYPES,
    PROCESSES,
    find_error,
    find_native_time,
    list_levels,
    randn,
    step_natively,
    to_native,
)

from diffusers_progdistill.processes.base import get_velocity
from diffusers_progdistill.processes.betas import BetaProcess
from diffusers_progdistill.processes.prediction import from_sample, output_slope, to_sample
from diffusers_progdistill.processes.solvers import DDIMStep
from diffusers_progdistill.processes.targets import TargetGrid
from diffusers_progdistill.processes.weighting import loss_weight


ONE_HEADED = [kind for kind in PREDICTION_TYPES if kind != "sample_epsilon"]
FLOWS = [name for name in PROCESSES if "flow" in name]
EXPLODING = [name for name in PROCESSES if "edm" in name or name == "exploding"]


def list_points(name, num_steps=8):
    """Angle, native time and network time at the points of a grid."""
    process = PROCESSES[name]
    levels = list_levels(process, num_steps)[:-1]
    return [(angle, find_native_time(process, angle, time), time) for angle, time in levels]


@pytest.mark.parametrize("num_steps", [1, 2, 4, 8])
@pytest.mark.parametrize("name, kind", CASES)
def test_a_native_step_is_the_rotation(name, kind, num_steps):
    process = PROCESSES[name]
    levels = list_levels(process, num_steps)
    for k, (start, end) in enumerate(zip(levels, levels[1:])):
        z, x = randn(2, 64, seed=k)
        alpha, sigma = math.cos(start[0]), math.sin(start[0])
        output, step = from_sample(x, z, alpha, sigma, kind), DDIMStep.create(start[0], end[0], kind)
        # What a small alpha makes of rounding.
        tolerance = 1e-12 / (alpha if kind == "epsilon" else 1)
        rotated = step.prev[0] * z + step.prev[1] * output
        assert find_error(rotated, step_natively(process, z, x, start, end)) <= tolerance
        assert find_error(step.x[0] * z + step.x[1] * output, x) <= tolerance
        # Both estimates are kept: alpha' x + sigma' eps.
        noise = from_sample(x, z, alpha, sigma, "epsilon")
        assert find_error(rotated, math.cos(end[0]) * x + math.sin(end[0]) * noise) <= tolerance


@pytest.mark.parametrize("name", PROCESSES)
def test_the_network_sees_its_own_sample(name):
    process, z = PROCESSES[name], randn(64)
    for angle, native, _ in list_points(name):
        if "edm" in name:
            s, unit = native, process.unit
            expected = to_native(process, z, native) / math.hypot(s, unit)  # c_in
        else:
            expected = to_native(process, z, native)
        seen = process.network_input(z, torch.tensor(angle, dtype=torch.float64))
        assert find_error(seen, expected) <= 1e-12


@pytest.mark.parametrize("name", PROCESSES)
def test_the_tangent_of_the_angle_is_noise_to_signal(name):
    process = PROCESSES[name]
    for angle, native, _ in list_points(name):
        signal = 1 - native if name in FLOWS else process.unit if name in EXPLODING else 1.0
        assert angle == pytest.approx(math.atan2(native, signal), rel=1e-12)


@pytest.mark.parametrize("name", PROCESSES)
def test_angles_and_times_are_each_others_inverse(name):
    process = PROCESSES[name]
    angles, times = process.levels(torch.linspace(1 / 64, 1, 64, dtype=torch.float64))
    assert (angles.diff() > 0).all() and angles[-1].item() == pytest.approx(process.max_angle, abs=1e-12)
    told = process.network_times(angles)
    assert told.dtype == torch.float32
    torch.testing.assert_close(told.double(), times, rtol=1e-5, atol=1e-5)
    # Beyond its range it is told what it knows, up to the angle's rounding: the float32 next to pi/2 is beyond it.
    ends = process.network_times(torch.tensor([1e-9, math.pi / 2], dtype=torch.float32))
    assert ends[1].item() == pytest.approx(times[-1].item(), rel=1e-4)
    assert torch.isfinite(ends).all() and ends[0] <= times[0]


@pytest.mark.parametrize("name", PROCESSES)
def test_levels_keep_the_dtype_of_the_positions(name):
    positions = torch.linspace(0.1, 1, 10)
    single, double = (PROCESSES[name].levels(positions.to(dtype)) for dtype in (torch.float32, torch.float64))
    for ours, exact in zip(single, double):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=1e-5)


# What the networks of each family say.


@pytest.mark.parametrize("name", FLOWS)
def test_a_velocity_means_the_x_of_the_flow(name):
    z, u = randn(2, 64)
    for angle, t, _ in list_points(name):
        alpha, sigma = math.cos(angle), math.sin(angle)
        native = to_native(PROCESSES[name], z, t)
        assert find_error(to_sample(u, z, alpha, sigma, "flow"), native - t * u) <= 1e-12
        velocity = from_sample(native - t * u, z, alpha, sigma, "v_prediction")
        assert find_error((1 - 2 * t) * z + u / (alpha + sigma), velocity) <= 1e-12
        # The next sample, in the table's own form.
        end, t_end = math.atan2(t / 2, 1 - t / 2), t / 2
        step = DDIMStep.create(angle, end, "flow")
        rotated = ((math.cos(end) + math.sin(end)) * z - math.sin(angle - end) * u) / (alpha + sigma)
        assert find_error(step.prev[0] * z + step.prev[1] * u, rotated) <= 1e-12
        euler = native + (t_end - t) * u
        assert find_error(rotated / (math.cos(end) + math.sin(end)), euler) <= 1e-12


@pytest.mark.parametrize("name", [name for name in EXPLODING if "edm" in name])
def test_edms_preconditioning_is_v_prediction(name):
    z, output = randn(2, 64)
    process = PROCESSES[name]
    for angle, s, _ in list_points(name):
        data, alpha, sigma = process.unit, math.cos(angle), math.sin(angle)
        norm = s**2 + data**2
        denoised = data**2 / norm * to_native(process, z, s) + s * data / norm**0.5 * output
        assert find_error(data * to_sample(output, z, alpha, sigma, "edm"), denoised) <= 1e-12
        assert find_error(data * to_sample(-output, z, alpha, sigma, "v_prediction"), denoised) <= 1e-12


def test_a_score_is_epsilon_by_its_noise():
    z, score = randn(2, 64)
    for angle, s, _ in list_points("exploding"):
        x = to_sample(-s * score, z, math.cos(angle), math.sin(angle), "epsilon")
        assert find_error((x + 1) / 2, to_native(PROCESSES["exploding"], z, s) + s**2 * score) <= 1e-12


@pytest.mark.parametrize("kind", ONE_HEADED)
def test_an_output_and_its_x_are_each_others_inverse(kind):
    z, output, x = randn(3, 100, 5)
    angle = torch.linspace(0.05, 1.52, 100, dtype=torch.float64)[:, None]
    alpha, sigma = angle.cos(), angle.sin()
    torch.testing.assert_close(
        from_sample(to_sample(output, z, alpha, sigma, kind), z, alpha, sigma, kind), output, rtol=1e-11, atol=1e-11
    )
    torch.testing.assert_close(
        to_sample(from_sample(x, z, alpha, sigma, kind), z, alpha, sigma, kind), x, rtol=1e-11, atol=1e-11
    )


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
def test_the_slope_of_an_output(kind):
    z, x, change = randn(3, 100)
    angle = torch.linspace(0.05, 1.52, 100, dtype=torch.float64)
    alpha, sigma = angle.cos(), angle.sin()
    moved = from_sample(x + change, z, alpha, sigma, kind) - from_sample(x, z, alpha, sigma, kind)
    torch.testing.assert_close(output_slope(alpha, sigma, kind) * change, moved, rtol=1e-11, atol=1e-11)


def test_the_velocity_is_minus_edms_output_and_a_flow_is_what_a_flow_is():
    x, noise = randn(2, 100)
    angle = torch.linspace(0.05, 1.52, 100, dtype=torch.float64)
    alpha, sigma = angle.cos(), angle.sin()
    z = alpha * x + sigma * noise
    velocity = get_velocity(x, noise, angle)
    torch.testing.assert_close(from_sample(x, z, alpha, sigma, "edm"), -velocity, rtol=0, atol=1e-11)
    torch.testing.assert_close(from_sample(x, z, alpha, sigma, "flow"), noise - x, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", FLOWS)
def test_the_weights_of_a_flow_in_its_own_time(name):
    angles = torch.tensor([angle for angle, _, _ in list_points(name)], dtype=torch.float64)
    t = torch.tensor([native for _, native, _ in list_points(name)], dtype=torch.float64)
    close = {"rtol": 1e-12, "atol": 1e-14}
    squares = t**2 + (1 - t) ** 2
    torch.testing.assert_close(loss_weight(angles, "snr_plus_one", "flow"), squares, **close)
    torch.testing.assert_close(loss_weight(angles, "truncated_snr", "flow"), torch.maximum(t, 1 - t) ** 2, **close)
    torch.testing.assert_close(loss_weight(angles, "snr", "flow"), (1 - t) ** 2, **close)
    torch.testing.assert_close(loss_weight(angles, "constant", "flow"), t**2, **close)
    for weighting in ("snr", "truncated_snr", "snr_plus_one", "constant"):
        assert torch.equal(loss_weight(angles, weighting, "edm"), loss_weight(angles, weighting, "v_prediction"))


# The target.


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("name", PROCESSES)
def test_the_weight_of_a_prediction_is_the_same_in_the_tangent_and_in_the_native_time(name, factor):
    process, num_steps = PROCESSES[name], 4
    weights = TargetGrid.create(process, num_steps, factor).weights
    fine = list_levels(process, num_steps * factor)[::-1]
    for i in range(1, num_steps + 1):
        levels = fine[(i - 1) * factor : i * factor + 1][::-1]
        natives = [find_native_time(process, *level) for level in levels]
        tangents = [math.tan(angle) for angle, _ in levels]
        for start, *row in (natives, tangents):
            for j, (mid, end) in enumerate(zip(row, row[1:])):
                expected = (mid - end) / (start - end) * (start / mid)
                assert weights[i - 1, j].item() == pytest.approx(expected, rel=1e-11)


def test_the_angles_of_known_grids():
    known = {
        "canonical": (90, 67.5, 45, 22.5),
        "stable_diffusion": (86.1, 76.2, 58.2, 34.7),
        "linear": (89.6, 86.7, 73.7, 43.6),
        "flow": (90, 71.6, 45, 18.4),
        "shifted_flow": (90, 83.7, 71.6, 45),
        "edm": (89.6, 88.4, 78.8, 18.8),
    }
    for name, degrees in known.items():
        ours = [math.degrees(angle) for angle, _, _ in list_points(name, 4)]
        assert ours == pytest.approx(degrees, abs=0.06), name


def test_where_a_pipeline_starts():
    noisy = {name for name, process in PROCESSES.items() if process.ends_in_noise}
    assert noisy == {"canonical", "zero_snr", "flow", "shifted_flow", "exploding"}
    silent = {name for name, process in PROCESSES.items() if process.has_zero_terminal_snr}
    assert silent == {"zero_snr", "flow", "shifted_flow"}
    assert isinstance(PROCESSES["zero_snr"], BetaProcess)
