"""Training and distilling end to end, small."""

import itertools
import json
import shutil

import pytest
import torch
from diffusers import DiffusionPipeline
from helpers.chains import chain, same, weights
from helpers.evaluations import distances
from helpers.networks import tiny_unet
from helpers.stages import distillation_task, make_run, train

from diffusers_progdistill import ProgressiveDistillationPipeline, ProgressiveDistillationScheduler, save_pipeline
from diffusers_progdistill.errors import InputError
from diffusers_progdistill.objectives.stage import Stage
from diffusers_progdistill.training import report
from diffusers_progdistill.training.chain import distill
from diffusers_progdistill.training.config import TeacherConfig
from diffusers_progdistill.training.teacher import train_teacher


def test_teacher_and_chain_leave_what_they_promise(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(report, "REFERENCE_STEPS", 32)
    teacher = TeacherConfig(
        output_dir=str(tmp_path / "run" / "teacher"), dataset_name="digits", report_to="none", max_train_steps=4,
        train_batch_size=16, lr_warmup_steps=2,
    )  # fmt: skip
    train_teacher(teacher)
    config = chain(tmp_path / "run" / "teacher", tmp_path / "run", eval_images=20, use_ema=True)
    distill(config)
    folder = tmp_path / "run"
    record = json.loads((folder / "chain.json").read_text())
    assert [s["name"] for s in record["stages"]] == ["steps-4", "steps-2", "steps-1"] and record["finished"]
    assert [s["updates"] for s in record["stages"]] == [3, 6, 6]
    assert [s["forward_passes"] for s in record["stages"]] == [15, 30, 30]
    measured = {*((f"steps-{n}", n) for n in (4, 2, 1)), *(("teacher", n) for n in (32, 4, 2, 1))}
    assert distances(folder).keys() == measured and "evaluation" not in record
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(x["stage"], x["update"]) for x in lines][:2] == [("steps-4", 2), ("steps-4", 3)]
    assert (folder / "samples.png").exists() and (folder / "curve.png").exists()
    for steps in (4, 2, 1):
        assert type(DiffusionPipeline.from_pretrained(folder / f"steps-{steps}")).__name__ == "DDIMPipeline"
        assert ProgressiveDistillationPipeline.from_pretrained(folder / f"steps-{steps}").num_trained_steps == steps
    assert "real images" in capsys.readouterr().out

    before = (folder / "chain.json").read_bytes()
    distill(config), train_teacher(teacher)
    assert "finished already" in capsys.readouterr().out and (folder / "chain.json").read_bytes() == before


def test_an_unfinished_chain_goes_on_where_it_was(teacher_folder, tmp_path):
    distill(chain(teacher_folder, tmp_path / "whole"))
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    record = json.loads((tmp_path / "cut" / "chain.json").read_text())
    record["stages"], record["finished"] = record["stages"][:1], False
    (tmp_path / "cut" / "chain.json").write_text(json.dumps(record))
    distill(chain(teacher_folder, tmp_path / "cut"))
    assert same(weights(tmp_path / "whole" / "steps-1"), weights(tmp_path / "cut" / "steps-1"))
    lines = (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == len((tmp_path / "whole" / "metrics.jsonl").read_text().splitlines())


def test_updates_of_a_conversion_that_is_not_needed_may_differ(teacher_folder, tmp_path, capsys):
    distill(chain(teacher_folder, tmp_path, end_steps=4, conversion_updates=3))
    distill(chain(teacher_folder, tmp_path, end_steps=4, conversion_updates=4))
    assert "finished already" in capsys.readouterr().out


def test_accumulated_halves_follow_the_same_trajectory(teacher_folder, tmp_path):
    options = {"end_steps": 4, "updates_per_stage": 12}
    distill(chain(teacher_folder, tmp_path / "one", **options))
    distill(
        chain(teacher_folder, tmp_path / "two", **options, **{"train_batch_size": 8}, gradient_accumulation_steps=2)
    )
    a, b = weights(tmp_path / "one" / "steps-4"), weights(tmp_path / "two" / "steps-4")
    flat = [torch.cat([v.flatten() for v in w.values()]).double() for w in (a, b)]
    assert (flat[0] - flat[1]).norm() / flat[0].norm() <= 2e-5


def test_distilling_brings_the_student_nearer_to_two_teacher_steps(teacher_folder, tmp_path):
    distill(chain(teacher_folder, tmp_path, end_steps=2, start_steps=4, updates_per_stage=60, teacher_solver="ddim"))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    noise = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def final(folder, steps):
        pipeline = ProgressiveDistillationPipeline.from_pretrained(folder)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline(64, latents=noise, num_inference_steps=steps, output_type="latent").images

    wanted = final(teacher_folder, 4)
    error = (final(tmp_path / "steps-2", 2) - wanted).square().mean()
    assert error < 0.5 * (final(teacher_folder, 2) - wanted).square().mean()


def test_only_the_first_stage_of_a_real_teacher_takes_midpoint_steps(teacher_folder, tmp_path):
    folders = {name: tmp_path / name for name in ("midpoint", "ddim", "again", "again-ddim")}
    distill(chain(teacher_folder, folders["midpoint"], start_steps=8, end_steps=2, teacher_solver="midpoint"))
    distill(chain(teacher_folder, folders["ddim"], start_steps=8, end_steps=2, teacher_solver="ddim"))
    settings = [json.loads((folders[n] / "chain.json").read_text())["settings"] for n in ("midpoint", "ddim")]
    assert [s["teacher_solver"] for s in settings] == ["midpoint", "ddim"]
    assert not same(*(weights(folders[n] / "steps-4") for n in ("midpoint", "ddim")))
    # A student teaches what its own steps do, whatever the option says, and the record does not speak of it.
    student = folders["midpoint"] / "steps-4"
    distill(chain(student, folders["again"], start_steps=4, end_steps=2, teacher_solver="midpoint"))
    distill(chain(student, folders["again-ddim"], start_steps=4, end_steps=2, teacher_solver="ddim"))
    assert json.loads((folders["again"] / "chain.json").read_text())["settings"]["teacher_solver"] is None
    first, *others = (weights(folders[n] / "steps-2") for n in ("midpoint", "again", "again-ddim"))
    assert all(same(first, other) for other in others)


def test_the_loss_is_an_option_and_in_the_record(tmp_path):
    unet, teacher_folder = tiny_unet(), tmp_path / "teacher"
    # Its images are beyond the range of pixels.
    torch.nn.init.constant_(unet.conv_out.bias, 4.0)
    save_pipeline(unet, ProgressiveDistillationScheduler(), teacher_folder)
    both = {"loss_type": "huber", "clip_loss": True}
    changes = {
        "default": {}, "both": both, "wide": {**both, "huber_c": 1.0}, "margin": {**both, "clip_margin": 0.0},
        "not clipped": {"loss_type": "huber"},
    }  # fmt: skip
    for name, options in changes.items():
        distill(chain(teacher_folder, tmp_path / name, end_steps=4, **options))
    settings = {n: json.loads((tmp_path / n / "chain.json").read_text())["settings"] for n in changes}
    told = {n: [s[k] for k in ("loss_type", "huber_c", "clip_loss", "clip_margin")] for n, s in settings.items()}
    assert told == {
        "default": ["l2", None, False, None], "both": ["huber", 0.00054, True, 0.7],
        "wide": ["huber", 1.0, True, 0.7], "margin": ["huber", 0.00054, True, 0.0],
        "not clipped": ["huber", 0.00054, False, None],
    }  # fmt: skip
    made = [weights(tmp_path / n / "steps-4") for n in changes]
    assert not any(same(a, b) for a, b in itertools.combinations(made, 2))
    # The squared loss has no constant, and what is not clipped no margin.
    distill(chain(teacher_folder, tmp_path / "default", end_steps=4, huber_c=0.5, clip_margin=0.5))
    with pytest.raises(InputError, match="--clip_loss False -> True; .*--loss_type l2 -> huber"):
        distill(chain(teacher_folder, tmp_path / "default", end_steps=4, **both))
    with pytest.raises(InputError, match="--huber_c must be a positive number, not 0"):
        distill(chain(teacher_folder, tmp_path / "none", huber_c=0))


@pytest.mark.parametrize("num_steps", [1, 2])
def test_a_stage_trains_on_its_own_grid(num_steps):
    """An N-step student is asked at t = i/N and nowhere else; its teacher there and at the middles."""
    student, teacher = tiny_unet(), tiny_unet()
    asked = {student: set(), teacher: set()}
    for network, timesteps in asked.items():
        hook = lambda _, args, seen=timesteps: seen.update(args[1].flatten().tolist())  # noqa: E731
        network.register_forward_pre_hook(hook)
    train(
        make_run(train_batch_size=16),
        distillation_task(Stage(f"steps-{num_steps}", 3, 5, num_steps), student, teacher),
    )
    assert asked[student] == {1024 * i / num_steps - 1 for i in range(1, num_steps + 1)}
    assert asked[teacher] == {1024 * i / (2 * num_steps) - 1 for i in range(1, 2 * num_steps + 1)}


def test_other_settings_and_other_files_are_refused(teacher_folder, tmp_path):
    distill(chain(teacher_folder, tmp_path / "run", end_steps=4))
    with pytest.raises(InputError, match="--learning_rate|--seed 0 -> 1"):
        distill(chain(teacher_folder, tmp_path / "run", end_steps=4, seed=1))
    with pytest.raises(InputError, match="global_batch_size 16 -> 32"):
        distill(chain(teacher_folder, tmp_path / "run", end_steps=4, train_batch_size=32))
    distill(chain(teacher_folder, tmp_path / "run", end_steps=4, train_batch_size=8, gradient_accumulation_steps=2))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="thesis.tex"):
        distill(chain(teacher_folder, tmp_path / "other"))


def test_a_loss_that_is_not_finite_stops_and_keeps_the_students(teacher_folder, tmp_path):
    config = chain(teacher_folder, tmp_path)
    distill(config)
    record = json.loads((tmp_path / "chain.json").read_text())
    record["stages"], record["finished"], record["settings"]["learning_rate"] = record["stages"][:1], False, 1e38
    (tmp_path / "chain.json").write_text(json.dumps(record))
    config.learning_rate = 1e38
    with pytest.raises(FloatingPointError, match=r"stage steps-2, update \d: "):
        distill(config)
    assert (tmp_path / "steps-4" / "model_index.json").exists()


def test_dry_run_writes_nothing(teacher_folder, tmp_path, capsys):
    distill(chain(teacher_folder, tmp_path / "none", dry_run=True))
    out = capsys.readouterr().out
    assert not (tmp_path / "none").exists() and "forward passes" in out and "2 -> 1" in out
