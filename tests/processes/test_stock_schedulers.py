"""The scheduler that a student is stored with makes the steps that it was trained for, by a plain call with N."""

import math

import pytest
import torch
from diffusers import DDIMScheduler, EDMEulerScheduler, FlowMatchEulerDiscreteScheduler
from helpers.noise_processes import PROCESSES, find_error, find_native_time, list_levels, randn, to_native

from diffusers_progdistill.processes.betas import BetaProcess
from diffusers_progdistill.processes.exploding import EDMProcess
from diffusers_progdistill.processes.flow import FlowProcess
from diffusers_progdistill.processes.solvers import DDIMStep


STOCK = {**PROCESSES, "less_noise": FlowProcess(shift=0.5), "flux": FlowProcess(shift=3.16)}
del STOCK["exploding"]
KINDS = {BetaProcess: ("epsilon", "sample", "v_prediction"), FlowProcess: ("flow",), EDMProcess: ("edm",)}
CASES = [(name, kind) for name in STOCK for kind in KINDS[type(STOCK[name])]]
# epsilon says nothing of x where there is no signal.
CASES.remove(("zero_snr", "epsilon"))


def prepare(process, num_steps, kind=None):
    """The stock scheduler as a stock pipeline prepares it."""
    scheduler = process.stock_scheduler(num_steps)
    if isinstance(scheduler, DDIMScheduler) and kind:
        scheduler.register_to_config(prediction_type=kind)
    # `StableDiffusion3Pipeline` makes mu of these two, by the size of the image.
    mu = {"mu": scheduler.config.base_shift} if scheduler.config.get("use_dynamic_shifting") else {}
    scheduler.set_timesteps(num_steps, **mu)
    return scheduler


@pytest.mark.parametrize("num_steps", [1, 2, 4, 8])
@pytest.mark.parametrize("name, kind", CASES)
def test_stock_steps_are_the_rotations_of_the_grid(name, kind, num_steps):
    process, levels = STOCK[name], list_levels(STOCK[name], num_steps)
    scheduler, z = prepare(process, num_steps, kind), randn(1, 1, 8, 8)
    start = find_native_time(process, *levels[0])
    sample = (z if isinstance(process, BetaProcess) else to_native(process, z, start)).float()
    scale = 1.0
    for k, (timestep, (angle, _), (end, _)) in enumerate(zip(scheduler.timesteps, levels, levels[1:])):
        output = randn(1, 1, 8, 8, seed=k + 1)
        if isinstance(scheduler, EDMEulerScheduler):
            seen = process.network_input(z, torch.tensor(angle, dtype=torch.float64))
            assert find_error(scheduler.scale_model_input(sample, timestep).double(), seen) <= 1e-4
        sample = scheduler.step(output.float(), timestep, sample).prev_sample
        step = DDIMStep.create(angle, end, kind)
        z = step.prev[0] * z + step.prev[1] * output
        # What is left of signal and noise where the step ends: 1, but for a flow.
        scale = math.cos(end) + math.sin(end) if kind == "flow" else 1.0
    expected = z / scale * (process.unit if kind == "edm" else 1)
    # In float32 the noise of EDM's only step is 160 times its data; an epsilon is divided by alpha, here of 4.5e-5.
    is_hard = (kind, num_steps) == ("edm", 1) or (name, kind) == ("canonical", "epsilon")
    tolerance = 2e-5 if is_hard else 2e-6
    assert find_error(sample.double(), expected) <= tolerance


@pytest.mark.parametrize("num_steps", [1, 2, 4, 8])
@pytest.mark.parametrize("name", STOCK)
def test_stock_timesteps_are_what_the_network_was_told(name, num_steps):
    times = torch.tensor([time for _, time in list_levels(STOCK[name], num_steps)[:-1]], dtype=torch.float64)
    stock = prepare(STOCK[name], num_steps).timesteps
    torch.testing.assert_close(stock.double(), times, rtol=1e-6, atol=1e-6)
    if isinstance(STOCK[name], BetaProcess):
        assert torch.equal(stock.double(), times)


@pytest.mark.parametrize("num_steps", [1, 2, 4])
@pytest.mark.parametrize("name", STOCK)
def test_the_grid_of_n_steps_is_part_of_that_of_twice_as_many(name, num_steps):
    process = STOCK[name]
    coarse, fine = list_levels(process, num_steps), list_levels(process, 2 * num_steps)
    assert coarse == fine[::2]
    coarse, fine = (prepare(process, n).timesteps.double() for n in (num_steps, 2 * num_steps))
    torch.testing.assert_close(coarse, fine[::2], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("resolution_tokens", [64, 1024, 4096])
@pytest.mark.parametrize("num_steps", [1, 2, 4, 8])
def test_stable_diffusion_3_finds_the_grid_at_every_resolution(num_steps, resolution_tokens):
    from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import calculate_shift, retrieve_timesteps

    process = STOCK["shifted_flow"]
    scheduler = process.stock_scheduler(num_steps)
    keys, options = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift"), {}
    if scheduler.config.use_dynamic_shifting:
        options["mu"] = calculate_shift(resolution_tokens, *(scheduler.config[key] for key in keys))
    timesteps, count = retrieve_timesteps(scheduler, num_steps, "cpu", sigmas=None, **options)
    times = torch.tensor([time for _, time in list_levels(process, num_steps)[:-1]])
    assert count == num_steps
    torch.testing.assert_close(timesteps, times.float(), rtol=1e-6, atol=1e-4)


def test_a_stored_config_makes_the_same_grid(tmp_path):
    for name in STOCK:
        scheduler = prepare(STOCK[name], 4)
        scheduler.save_pretrained(tmp_path / name)
        again = type(scheduler).from_pretrained(tmp_path / name)
        again.set_timesteps(4, **({"mu": again.config.max_shift} if again.config.get("use_dynamic_shifting") else {}))
        assert torch.equal(again.timesteps, scheduler.timesteps)


def test_the_closed_form_of_the_shift():
    config = FlowProcess(shift=3.0).stock_scheduler(4).config
    assert math.exp(config.base_shift) == pytest.approx(2.002004, abs=1e-6)
    assert config.base_shift == config.max_shift and config.shift_terminal == pytest.approx(0.5)
    config = FlowProcess(shift=3.0).stock_scheduler(8).config
    assert math.exp(config.base_shift) == pytest.approx(2.403368, abs=1e-6)
    assert config.shift_terminal == pytest.approx(0.3)
    assert isinstance(FlowProcess().stock_scheduler(4), FlowMatchEulerDiscreteScheduler)
    assert FlowProcess().stock_scheduler(4).config.shift_terminal == 0.25
    assert not FlowProcess().stock_scheduler(4).config.use_dynamic_shifting


def test_what_no_stock_scheduler_samples_is_refused():
    with pytest.raises(ValueError, match="16 does not"):
        PROCESSES["linear"].stock_scheduler(16)
    with pytest.raises(ValueError, match="no stock scheduler samples VarianceExplodingProcess in 4 steps"):
        PROCESSES["exploding"].stock_scheduler(4)


def test_the_other_times_of_flows():
    angles, times = FlowProcess(3.0).levels(torch.linspace(0.1, 1, 10, dtype=torch.float64))
    for process, expected in (
        (FlowProcess(3.0, time_scale=1.0), times / 1000),
        (FlowProcess(3.0, time_scale=1.0, counts_from_noise=True), 1 - times / 1000),
    ):
        level = process.levels(torch.linspace(0.1, 1, 10, dtype=torch.float64))
        assert torch.equal(level.angle, angles)
        torch.testing.assert_close(level.time, expected, rtol=0, atol=1e-14)
        torch.testing.assert_close(process.network_times(angles), expected.float(), rtol=1e-6, atol=1e-7)
