"""`--start_steps auto` prints flags, and they make the same students."""

import dataclasses
import re

import pytest

from diffusers_progdistill.commands.main import main
from diffusers_progdistill.training import initial_steps as start
from diffusers_progdistill.training.chain import distill
from diffusers_progdistill.training.config import DistillationConfig


BASE = {
    "dataset_name": "digits", "report_to": "none", "end_steps": 4, "stage_factor": 4, "updates_per_stage": 2,
    "train_batch_size": 8, "seed": 3,
}  # fmt: skip


def flags_in(said: str) -> list[str]:
    (flags,) = re.findall(r"^the same without looking: (.*)$", said, re.MULTILINE)
    return flags.split()


def weights_of(folder, name="steps-4"):
    return next((folder / name / "unet").glob("*.safetensors")).read_bytes()


@pytest.mark.parametrize(
    "given, expected",
    [
        ({}, ["--start_steps", "8", "--teacher_solver", "midpoint"]),
        ({"start_steps": "auto", "teacher_solver": "ddim"}, ["--start_steps", "8", "--teacher_solver", "ddim"]),
        ({"start_steps": "auto", "recipe": "paper"}, ["--start_steps", "8", "--teacher_solver", "ddim"]),
    ],
)
def test_the_flags_make_the_same_students(given, expected, teacher_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(start, "TOLERANCE", 1.0)
    monkeypatch.setattr(start, "NUM_IMAGES", 8)
    monkeypatch.setattr(start, "REFERENCE_STEPS", {"ddim": 16, "midpoint": 16})
    config = DistillationConfig(
        pretrained_teacher_model=str(teacher_folder), output_dir=str(tmp_path / "auto"), **BASE, **given
    )
    before = dataclasses.asdict(config)
    distill(config)
    assert dataclasses.asdict(config) == before
    flags = flags_in(capsys.readouterr().out)
    assert flags == expected
    monkeypatch.setattr(start, "sample_teacher", lambda *_: pytest.fail("it was not to look"))
    words = [f"--{k}={v}" for k, v in BASE.items()]
    words += [f"--pretrained_teacher_model={teacher_folder}", f"--output_dir={tmp_path / 'flags'}"]
    assert main(["distill", *words, *flags]) == 0
    assert weights_of(tmp_path / "flags") == weights_of(tmp_path / "auto")
    # The number alone has the default's solver.
    if "recipe" not in given and "teacher_solver" not in given:
        assert main(["distill", *words, *flags[:2]]) == 0
        assert "is finished already" in capsys.readouterr().out


def test_another_teacher_with_the_same_config(teacher_folder, tmp_path, monkeypatch, capsys):
    """What was found for one teacher is not left in the config for the next."""
    found = iter([8, 16])
    monkeypatch.setattr(start, "find_start", lambda *_: (next(found), {}))
    config = DistillationConfig(pretrained_teacher_model=str(teacher_folder), output_dir=str(tmp_path), **BASE)
    for steps in (8, 16):
        distill(dataclasses.replace(config, dry_run=True, updates_per_stage=1))
        assert flags_in(capsys.readouterr().out)[1] == str(steps)
    assert config.start_steps is None and config.teacher_solver is None


def test_a_recipe_does_not_move_a_students_steps(teacher_folder, tmp_path, capsys):
    options = {**BASE, "stage_factor": 2, "updates_per_stage": 1}
    first = {"pretrained_teacher_model": str(teacher_folder), "output_dir": str(tmp_path / "first")}
    distill(DistillationConfig(**{**options, "end_steps": 2}, **first, start_steps=4))
    student = {"pretrained_teacher_model": str(tmp_path / "first" / "steps-2"), "end_steps": 1}
    for recipe in ("paper", "default"):
        capsys.readouterr()
        distill(DistillationConfig(**{**options, **student}, recipe=recipe, output_dir=str(tmp_path / recipe)))
        said = capsys.readouterr().out
        assert flags_in(said) == ["--start_steps", "2"] and "changes nothing" not in said
        assert f"recipe: {recipe} (start_steps 2, loss_type l2, clip_loss False)" in said
    assert weights_of(tmp_path / "paper", "steps-1") == weights_of(tmp_path / "default", "steps-1")
    # An option that does nothing is named.
    distill(DistillationConfig(**{**options, **student}, teacher_solver="ddim", output_dir=str(tmp_path / "default")))
    assert "--teacher_solver ddim changes nothing: the teacher is a student" in capsys.readouterr().out
