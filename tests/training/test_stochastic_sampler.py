"""Meng et al.'s stochastic sampler: its target, its step, and a student that is made for it and used."""

import json
import math

import pytest
import torch
from diffusers import DiffusionPipeline
from helpers.evaluations import distances
from helpers.networks import tiny_unet

from diffusers_progdistill import ProgressiveDistillationPipeline, ProgressiveDistillationScheduler, save_pipeline
from diffusers_progdistill.commands.main import main
from diffusers_progdistill.evaluation.sampling import draw_noise, generate
from diffusers_progdistill.pipelines.export import attach_metadata
from diffusers_progdistill.processes.betas import ANGLE_MIN, ANGLE_RANGE, BetaProcess, canonical_betas
from diffusers_progdistill.processes.targets import TargetGrid, teacher_target


def angle(t):
    """phi at t, clean data at 0: from the paper, not from the package."""
    return ANGLE_RANGE * t + ANGLE_MIN if t > 0 else 0.0


def teacher(z, timestep):
    """A nonlinear teacher of v, different at every timestep."""
    t = (timestep[:, None, None, None] + 1) / 1024
    return torch.tanh(z * (1 + t)) + torch.sin(7 * t + z)


def predict_x0(z, level):
    phi = level.angle[:, None, None, None]
    return phi.cos() * z - phi.sin() * teacher(z, level.time)


def ddim(z, x, phi, end):
    return math.cos(end) * x + math.sin(end) / math.sin(phi) * (z - math.cos(phi) * x)


def noise(count, seed=0):
    return torch.randn(count, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def stochastic_scheduler(num_steps):
    return attach_metadata(ProgressiveDistillationScheduler(), num_inference_steps=num_steps, stochastic_sampler=True)


@pytest.mark.parametrize("num_steps", [1, 2, 3, 8, 64, 4096])
def test_one_step_with_the_target_lands_where_two_of_the_teachers_land(num_steps):
    grid = TargetGrid.create_doubled(BetaProcess(canonical_betas(), 1024), num_steps)
    for i in {1, 2, 3, num_steps // 2, num_steps} & {*range(1, num_steps + 1)}:
        z = noise(1, seed=i)
        landed = z
        for k in (i, i - 1)[: 1 if i == 1 else 2]:
            phi = angle(k / num_steps)
            v = teacher(landed, torch.tensor([1024 * k / num_steps - 1], dtype=torch.float64))
            landed = ddim(landed, math.cos(phi) * landed - math.sin(phi) * v, phi, angle((k - 1) / num_steps))
        target = teacher_target(predict_x0, z, grid.at(torch.tensor([i - 1])))
        own = ddim(z, target, angle(i / num_steps), angle(max(i - 2, 0) / num_steps))
        assert (own - landed).abs().max() <= 1e-12


@pytest.mark.parametrize("num_steps", [2, 3, 4, 8])
def test_a_step_is_a_jump_and_the_noise_back(num_steps):
    scheduler, fresh = stochastic_scheduler(num_steps), noise(2, seed=1)
    scheduler.set_timesteps(num_steps)
    for i, timestep in zip(range(num_steps, 0, -1), scheduler.timesteps):
        z, v = noise(2, seed=2), noise(2, seed=3)
        phi, jump, back = (angle(k / num_steps) for k in (i, i - 2, i - 1))
        x = math.cos(phi) * z - math.sin(phi) * v
        expected = ddim(z, x, phi, jump)
        if i > 1:
            # The forward process from the jump's noise level to that of the grid's next entry.
            scale = math.cos(back) / math.cos(jump)
            expected = scale * expected + math.sqrt(math.sin(back) ** 2 - (scale * math.sin(jump)) ** 2) * fresh
        got = scheduler.step(v, timestep, z, variance_noise=fresh)
        torch.testing.assert_close(got.prev_sample, expected, atol=1e-10, rtol=0)
        torch.testing.assert_close(got.pred_original_sample, x, atol=1e-12, rtol=0)
    with pytest.raises(ValueError, match="`eta` must be 0, not 1"):
        scheduler.step(v, timestep, z, eta=1.0)


def test_an_image_depends_on_its_seed_and_number_alone():
    pipeline = ProgressiveDistillationPipeline(tiny_unet(), stochastic_scheduler(4))
    whole = generate(pipeline, 6, 4, seed=5)
    assert torch.equal(generate(pipeline, 2, 4, seed=5), whole[:2])
    # By itself, as a person would sample the fourth image.
    noise, generators = draw_noise(5, 3, 1, (1, 8, 8))
    alone = pipeline(latents=noise, generator=generators, output_type="pt").images
    torch.testing.assert_close(alone, whole[3:4], atol=1e-5, rtol=0)
    # The fresh noise is used: the deterministic sampler makes something else from the same start.
    plain = attach_metadata(ProgressiveDistillationScheduler(), num_inference_steps=4)
    assert (generate(ProgressiveDistillationPipeline(tiny_unet(), plain), 6, 4, seed=5) - whole).abs().max() > 0.05


def distill(teacher, folder, *more):
    options = ["--dataset_name", "digits", "--train_batch_size", "16", "--report_to", "none", *more]
    return main(["distill", "--pretrained_teacher_model", str(teacher), "--output_dir", str(folder), *options])


def student_folder(folder, **metadata):
    scheduler = attach_metadata(ProgressiveDistillationScheduler(), num_inference_steps=4, **metadata)
    save_pipeline(tiny_unet(), scheduler, folder)
    return folder


STOCHASTIC = ["--stochastic_sampler", "--start_steps", "4", "--end_steps", "4"]


def test_a_student_is_made_stochastic(tmp_path, capsys):
    source, folder = student_folder(tmp_path / "source"), tmp_path / "run"
    assert distill(source, folder, *STOCHASTIC, "--updates_per_stage", "2", "--eval_images", "20") == 0
    record = json.loads((folder / "chain.json").read_text())
    assert [s["name"] for s in record["stages"]] == ["steps-4"] and record["stages"][0]["forward_passes"] == 10
    # Its teacher is measured at the steps it was made for, not at 256.
    assert distances(folder).keys() == {("teacher", 4), ("steps-4", 4)}
    # Stock diffusers has no such sampler and must not try; this package's class is found by the stock loader.
    assert json.loads((folder / "steps-4" / "model_index.json").read_text())["_class_name"].startswith("Progressive")
    pipeline = DiffusionPipeline.from_pretrained(folder / "steps-4")
    assert pipeline.scheduler.has_stochastic_sampler and pipeline.num_trained_steps == 4
    card = (folder / "README.md").read_text()
    assert "sampled with fresh noise" in card and "stock pipelines do not have this sampler" in card
    assert "two steps of the teacher" in card and "from diffusers import" not in card
    assert main(["sample", str(folder / "steps-4"), "--num_images", "2", "--output", str(tmp_path / "s.png")]) == 0
    assert distill(source, folder, *STOCHASTIC, "--updates_per_stage", "2") == 0
    assert "finished already" in capsys.readouterr().out


@pytest.mark.parametrize(
    "metadata, options, message",
    [
        (
            {},
            ["--stochastic_sampler", "--start_steps", "4", "--end_steps", "2"],
            "--end_steps must be --start_steps 4",
        ),
        ({}, ["--stochastic_sampler", "--start_steps", "1", "--end_steps", "1"], "--end_steps must be 2 or more"),
        ({}, ["--stochastic_sampler", "--start_steps", "auto"], "--start_steps must be a number with --stochastic"),
        ({}, [*STOCHASTIC, "--stage_factor", "4"], "--stage_factor must be 2 with --stochastic_sampler"),
        ({"num_inference_steps": None}, STOCHASTIC, "needs a --pretrained_teacher_model that was distilled"),
        ({"stochastic_sampler": True}, ["--start_steps", "4", "--end_steps", "2"], "made for the stochastic sampler"),
    ],
)
def test_what_cannot_be_made_is_refused_in_one_line(metadata, options, message, tmp_path, capsys):
    scheduler = attach_metadata(ProgressiveDistillationScheduler(), **{"num_inference_steps": 4, **metadata})
    save_pipeline(tiny_unet(), scheduler, tmp_path / "source")
    capsys.readouterr()
    assert distill(tmp_path / "source", tmp_path / "run", *options) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert message in lines[-1] and not (tmp_path / "run").exists()


def test_the_plan_shows_it(tmp_path, capsys):
    assert distill(student_folder(tmp_path / "source"), tmp_path / "run", *STOCHASTIC, "--dry_run") == 0
    assert "4 -> 4     steps" in capsys.readouterr().out
