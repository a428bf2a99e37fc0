"""The consistency objective: its targets in closed form, its schedule, its target network, and a run that goes on."""

import json
import math
import signal

import pytest
import torch
from helpers.chains import same, weights
from helpers.networks import tiny_unet
from helpers.processes import chain_options, run, stopped_at

from diffusers_progdistill import ProgressiveDistillationScheduler
from diffusers_progdistill.commands.main import main
from diffusers_progdistill.denoisers.base import Denoiser
from diffusers_progdistill.objectives.base import Batch
from diffusers_progdistill.objectives.consistency import TARGET_DECAY, ConsistencyObjective


COUNT = 64


def zero_v(network=None):
    """A denoiser of N(0, 1) data: v is 0 and x is cos(phi) z."""
    unet = tiny_unet().requires_grad_(False)
    torch.nn.init.zeros_(unet.conv_out.weight), torch.nn.init.zeros_(unet.conv_out.bias)
    return Denoiser(network or unet, ProgressiveDistillationScheduler().schedule, "v_prediction")


def make_batch():
    data, noise = torch.randn(2, COUNT, 1, 8, 8, generator=torch.Generator().manual_seed(0)).unbind()
    return Batch(data, {}, (torch.arange(COUNT) + 0.5) / COUNT, noise)


@pytest.mark.parametrize("update", [0, 30, 79])
def test_the_target_is_the_target_network_after_one_step_of_the_teacher(update):
    objective = ConsistencyObjective(zero_v(), zero_v(), updates=80)
    examples = objective.make_examples(make_batch(), update)
    angle = examples.angle.double()
    nearer = objective.find_nearer_angle(angle, update)
    # The step multiplies z by cos(phi - phi_r), and x of the target network is cos(phi_r) times that.
    scale = torch.cos(nearer) * torch.cos(angle - nearer)
    expected = scale[:, None, None, None].float() * examples.z
    torch.testing.assert_close(examples.target, expected, atol=2e-4, rtol=1e-4)
    assert ((nearer >= 0) & (nearer < angle)).all()


def test_the_noise_levels_are_log_normal_and_come_nearer():
    objective = ConsistencyObjective(zero_v(), zero_v(), updates=80)
    t = torch.tan(objective.make_examples(make_batch()).angle.double())
    assert torch.log(t).median().item() == pytest.approx(-1.1, abs=0.05)
    shares = []
    for update in (0, 9, 10, 79):
        r = torch.tan(objective.find_nearer_angle(torch.atan(t), update))
        shares.append(((t - r) / t)[-1].item())
    # After each eighth of the updates the second level is nearer by half; n(t) is 1 + 8 sigmoid(-t).
    n = 1 + 8 / (1 + math.exp(t[-1]))
    assert shares == pytest.approx([min(n / 2, 1), min(n / 2, 1), min(n / 4, 1), n / 2**8], rel=1e-6)


def test_the_target_network_follows_the_student():
    student = zero_v()
    objective = ConsistencyObjective(student, zero_v(), updates=10)
    torch.nn.init.ones_(student.network.conv_out.bias)
    for update in (1, 2):
        objective.after_update(update)
        found = objective.networks["target"].conv_out.bias.item()
        assert found == pytest.approx(1 - TARGET_DECAY**update, rel=1e-5)


def test_a_student_that_is_consistent_has_no_loss():
    objective = ConsistencyObjective(zero_v(), zero_v(), updates=10)
    examples = objective.make_examples(make_batch())
    examples.target = torch.cos(examples.angle)[:, None, None, None] * examples.z
    assert objective.compute_losses(objective.student.network, examples)["loss"].item() < 1e-12


def test_a_killed_run_goes_on_with_its_target_network(teacher_folder, tmp_path):
    words = [
        ["distill", *chain_options(teacher_folder, tmp_path / name, objective="consistency")]
        for name in ("whole", "killed")
    ]
    assert main(words[0]) == 0
    assert run(stopped_at(5, signal.SIGKILL, *words[1]))[0] == -signal.SIGKILL
    # Without the target network the same weights would be another student.
    assert list((tmp_path / "killed" / "checkpoints").glob("steps-1-*/target.safetensors"))
    assert main(words[1]) == 0
    one, other = (weights(tmp_path / name / "steps-1") for name in ("whole", "killed"))
    assert same(one, other)


@pytest.mark.parametrize(
    "name, value",
    [
        ("loss_type", "huber"),
        ("clip_loss", True),
        ("weighting", "snr"),
        ("stage_factor", 4),
        ("teacher_solver", "ddim"),
    ],
)
def test_options_of_distillation_alone_are_refused(name, value, teacher_folder, tmp_path, capsys):
    words = ["distill", *chain_options(teacher_folder, tmp_path / "run", objective="consistency", **{name: value})]
    assert main(words) == 2
    assert f"--{name} must be left out with --objective consistency" in capsys.readouterr().err


def test_the_record_says_nothing_of_a_loss_that_was_not_used(teacher_folder, tmp_path):
    options = {"objective": "consistency", "updates_per_stage": 1, "start_steps": "auto"}
    words = ["distill", *chain_options(teacher_folder, tmp_path / "run", **options)]
    assert main([*words, "--dry_run"]) == 0
    assert main(words) == 0
    settings = json.loads((tmp_path / "run" / "chain.json").read_text())["settings"]
    assert settings["objective"] == "consistency"
    assert settings["loss_type"] is settings["weighting"] is settings["teacher_solver"] is None
