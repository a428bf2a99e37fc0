"""The contract that diffusers' own scheduler tests ask of a scheduler, and what is particular to this one."""

import math

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler
from torch.utils._python_dispatch import TorchDispatchMode

from diffusers_progdistill import ProgressiveDistillationScheduler


STOCK = [DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler]


def sample(seed=0, channels=1):
    return torch.randn(4, channels, 8, 8, generator=torch.Generator().manual_seed(seed))


def ready(num_steps=4, **config):
    scheduler = ProgressiveDistillationScheduler(**config)
    scheduler.set_timesteps(num_steps)
    return scheduler


@pytest.mark.parametrize("stock", STOCK)
@pytest.mark.parametrize("config", [{}, {"beta_schedule": "scaled_linear", "prediction_type": "sample"}])
@pytest.mark.parametrize("reloaded", [False, True])
def test_stock_schedules_survive_both_ways(stock, config, reloaded, tmp_path):
    source = stock(**config)
    if reloaded:
        source.save_pretrained(tmp_path)
        source = stock.from_pretrained(tmp_path)
    ours = ProgressiveDistillationScheduler.from_config(source.config)
    assert ours.config.prediction_type == source.config.prediction_type
    torch.testing.assert_close(ours.alphas_cumprod, source.alphas_cumprod, atol=1e-6, rtol=0)
    back = stock.from_config(ours.config)
    assert torch.equal(back.betas, source.betas) and back.config.prediction_type == source.config.prediction_type


@pytest.mark.parametrize("stock", STOCK)
@pytest.mark.parametrize("reloaded", [False, True])
def test_the_canonical_schedule_survives_both_ways(stock, reloaded, tmp_path):
    ours = ProgressiveDistillationScheduler()
    there = stock.from_config(ours.config)
    torch.testing.assert_close(there.alphas_cumprod, ours.alphas_cumprod, atol=1e-6, rtol=0)
    assert there.config.prediction_type == "v_prediction" and there.config.timestep_spacing == "trailing"
    if reloaded:
        there.save_pretrained(tmp_path)
        there = stock.from_pretrained(tmp_path)
    back = ProgressiveDistillationScheduler.from_config(there.config)
    assert back.schedule.is_canonical
    changed = [k for k, v in ours.config.items() if k in ours.config and back.config.get(k) != v]
    assert changed in ([], ["_use_default_values"])


def test_keys_that_an_old_config_leaves_out_mean_the_defaults_of_its_class():
    old = {"_class_name": "DDPMScheduler", "num_train_timesteps": 1000, "beta_start": 0.0001, "beta_end": 0.02}
    ours = ProgressiveDistillationScheduler.from_config(old)
    assert ours.config.prediction_type == "epsilon"
    torch.testing.assert_close(ours.alphas_cumprod, DDPMScheduler().alphas_cumprod, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace"])
def test_every_beta_schedule_of_diffusers(name):
    ours = ProgressiveDistillationScheduler(beta_schedule=name)
    assert torch.equal(ours.betas, DDPMScheduler(1024, beta_schedule=name).betas)


def test_trained_betas_and_a_save_and_load(tmp_path):
    scheduler = ProgressiveDistillationScheduler(trained_betas=np.array([0.1, 0.3]))
    scheduler.save_pretrained(tmp_path)
    again = ProgressiveDistillationScheduler.from_pretrained(tmp_path)
    assert scheduler.betas.tolist() == again.betas.tolist()
    config = dict(scheduler.config)
    assert config.pop("_use_default_values") == []
    assert [k for k in {*config, *again.config} if config.get(k) != again.config.get(k)] == []


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize(
    "options", [{}, {"clip_sample": True}, {"thresholding": True, "sample_max_value": 2.0}, {"clip_sample_range": 0.5}]
)
@pytest.mark.parametrize("eta, use_clipped", [(0.0, False), (0.0, True), (1.0, None), (0.5, True)])
def test_each_step_is_ddims(prediction_type, options, eta, use_clipped):
    ours = ready(8, prediction_type=prediction_type, beta_schedule="linear", **options)
    stock = DDIMScheduler.from_config(ours.config)
    stock.set_timesteps(8)
    z, output = sample(), sample(1)
    for mine, theirs in zip(ours.timesteps, stock.timesteps):
        a, b = (
            s.step(output, t, z, eta=eta, use_clipped_model_output=use_clipped, generator=torch.manual_seed(0))
            for s, t in ((ours, mine), (stock, theirs))
        )
        scale = 1 + b.pred_original_sample.abs().max()
        assert (a.prev_sample - b.prev_sample).abs().max() < 1e-4 * scale
        assert (a.pred_original_sample - b.pred_original_sample).abs().max() < 1e-4 * scale


def test_two_headed_output_steps_as_its_merged_image():
    two, one = ready(prediction_type="sample_epsilon"), ready(prediction_type="sample")
    z, output = sample(), sample(1, channels=2)
    t = two.timesteps[1]
    angle = two.schedule.angle(t.item())
    x = math.sin(angle) ** 2 * output[:, :1] + math.cos(angle) * (z - math.sin(angle) * output[:, 1:])
    torch.testing.assert_close(two.step(output, t, z).prev_sample, one.step(x, one.timesteps[1], z).prev_sample)


@pytest.mark.parametrize("num_steps", [1, 3, 4, 7, 48, 1024, 4096])
def test_grid_is_i_over_n(num_steps):
    scheduler = ready(num_steps)
    expected = 1024 * torch.arange(num_steps, 0, -1).double() / num_steps - 1
    torch.testing.assert_close(scheduler.timesteps.double(), expected, atol=1e-4, rtol=0)
    assert scheduler.timesteps.dtype == torch.float32


def test_steps_follow_the_grid_even_where_t_is_not_divisible():
    scheduler = ready(7)
    z, v = sample().double(), sample(1).double()
    step = scheduler.step(v, scheduler.timesteps[2], z).prev_sample
    turn = scheduler.schedule.angle(1024 * 5 / 7 - 1) - scheduler.schedule.angle(1024 * 4 / 7 - 1)
    torch.testing.assert_close(step, math.cos(turn) * z - math.sin(turn) * v, atol=1e-12, rtol=0)


def test_off_the_grid_a_step_is_one_nth_and_ends_at_clean_data():
    scheduler = ready(4)
    z, v = sample().double(), sample(1).double()
    turn = scheduler.schedule.angle(700) - scheduler.schedule.angle(700 - 256)
    expected = math.cos(turn) * z - math.sin(turn) * v
    for timestep in (700, 700.0, torch.tensor(700)):
        torch.testing.assert_close(scheduler.step(v, timestep, z).prev_sample, expected, atol=1e-12, rtol=0)
    near = scheduler.step(v, 100, z)
    torch.testing.assert_close(near.prev_sample, near.pred_original_sample)


def test_own_timesteps_and_a_number_or_another_tensor_for_a_grid_entry():
    scheduler = ProgressiveDistillationScheduler()
    scheduler.set_timesteps(timesteps=[1023, 200.5, 10])
    z, v = sample(), sample(1)
    a, b, c = (scheduler.step(v, t, z).prev_sample for t in (scheduler.timesteps[1], 200.5, torch.tensor(200.5)))
    assert torch.equal(a, b) and torch.equal(a, c)


class Reads(TorchDispatchMode):
    """Counts what makes the host wait for the device."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def landed(scheduler, timesteps):
    """Where steps at these timesteps lead one after the other, and how often the host waited."""
    z = sample()
    with Reads() as reads:
        for t in timesteps:
            z = scheduler.step(0.5 * z, t, z).prev_sample
    return z, reads.count


@pytest.mark.parametrize("begin", [0, 2])
@pytest.mark.parametrize(
    "change, most_reads",
    [
        (lambda timesteps: timesteps, 1),
        (lambda timesteps: timesteps.tolist(), 0),
        (lambda timesteps: timesteps.clone(), 4),
        (lambda timesteps: [t.expand(1) for t in timesteps], 4),
    ],
)
def test_a_run_in_order_reads_nothing_from_the_device(begin, change, most_reads):
    """It may begin in the middle, and follow another that did not end."""
    scheduler, fresh = (ready(4, prediction_type="sample") for _ in range(2))
    expected = sample()
    for t in fresh.timesteps.tolist()[begin:]:
        expected = fresh.step(0.5 * expected, t, expected).prev_sample
    timesteps = change(scheduler.timesteps)[begin:]
    for _ in range(2):
        made, reads = landed(scheduler, timesteps)
        assert torch.equal(made, expected) and reads <= most_reads
        landed(scheduler, scheduler.timesteps[:3])


def test_a_begin_that_is_set_counts_whatever_the_timesteps():
    scheduler = ready(4, prediction_type="sample")
    expected, _ = landed(scheduler, scheduler.timesteps.tolist()[1:])
    scheduler.set_begin_index(1)
    assert scheduler.begin_index == 1 and scheduler.step_index is None
    for _ in range(2):
        made, reads = landed(scheduler, scheduler.timesteps.clone()[1:])
        assert torch.equal(made, expected) and reads == 0
    scheduler.set_timesteps(4)
    assert scheduler.begin_index is None and scheduler.index_for_timestep(scheduler.timesteps[3]) == 3
    assert scheduler.index_for_timestep(700) is None


def test_the_same_timestep_twice_is_the_same_step():
    scheduler = ready(4, prediction_type="sample")
    z = sample()
    steps = [scheduler.step(0.5 * z, scheduler.timesteps[k], z).prev_sample for k in (1, 1, 2, 0, 1)]
    assert torch.equal(steps[0], steps[1]) and torch.equal(steps[0], steps[4]) and not torch.equal(steps[2], steps[0])


def test_add_noise_and_velocity_agree_with_ddim_at_integers_and_go_between_them():
    ours = ProgressiveDistillationScheduler()
    stock = DDIMScheduler.from_config(ours.config)
    x, noise, t = sample(), sample(1), torch.tensor([0, 5, 500, 1023])
    torch.testing.assert_close(ours.add_noise(x, noise, t), stock.add_noise(x, noise, t), atol=5e-5, rtol=0)
    torch.testing.assert_close(ours.get_velocity(x, noise, t), stock.get_velocity(x, noise, t), atol=5e-5, rtol=0)
    between = ours.add_noise(torch.ones(1, 1), torch.zeros(1, 1), torch.tensor([500.5])).item()
    assert stock.alphas_cumprod[501].sqrt() < between < stock.alphas_cumprod[500].sqrt()
    assert ours.add_noise(x.half(), noise.half(), t).dtype == torch.float16


def test_warns_only_when_the_number_of_steps_is_not_the_trained_one(caplog):
    from diffusers_progdistill.pipelines.export import attach_metadata

    scheduler = attach_metadata(ProgressiveDistillationScheduler(), num_inference_steps=4)
    scheduler.set_timesteps(4)
    ProgressiveDistillationScheduler().set_timesteps(8)
    assert not caplog.records
    scheduler.set_timesteps(8)
    assert "distilled for 4" in caplog.text


def test_stays_finite_from_zero_terminal_snr():
    scheduler = ready(8, rescale_betas_zero_snr=True, beta_schedule="linear")
    assert scheduler.alphas_cumprod[-1] < 1e-12
    z = sample()
    for t in scheduler.timesteps:
        z = scheduler.step(0.1 * z, t, z).prev_sample
    assert torch.isfinite(z).all()


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda: ProgressiveDistillationScheduler(prediction_type="nope"), "prediction_type"),
        (lambda: ProgressiveDistillationScheduler(prediction_type="flow"), "must be one of epsilon, sample, v_pred"),
        (lambda: ProgressiveDistillationScheduler(beta_schedule="nope"), "beta_schedule"),
        (lambda: ProgressiveDistillationScheduler(timestep_spacing="leading"), "timestep_spacing"),
        (lambda: ready(0), "num_inference_steps"),
        (lambda: ready(None), "exactly one"),
        (lambda: ready(4, prediction_type="epsilon", rescale_betas_zero_snr=True), "zero terminal SNR"),
        (lambda: ProgressiveDistillationScheduler().step(sample(), 0, sample()), "set_timesteps"),
        (lambda: ProgressiveDistillationScheduler.from_config({"use_flow_sigmas": True}), "flow"),
    ],
)
def test_what_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()
