"""`--start_steps auto`: where the teacher's images no longer change."""

import json

import pytest
import torch
from accelerate import Accelerator
from conftest import tiny_unet
from diffusers import DDIMPipeline, DDIMScheduler
from test_chain import chain

from diffusers_progdistill import ProgressiveDistillationPipeline
from diffusers_progdistill.errors import InputError
from diffusers_progdistill.training import start
from diffusers_progdistill.training.chain import distill
from diffusers_progdistill.training.config import DistillationConfig


class Teacher:
    """Images whose error falls as DDIM's does: that of N steps is c/N, the same in every pixel."""

    def __init__(self, error):
        self.error = error

    def images(self, _, __, count, steps, **___):
        x = torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        return x + self.error / steps


@pytest.mark.parametrize("end_steps", [1, 4, 7])
@pytest.mark.parametrize("error", [0.0, 0.05, 0.4, 1.7, 5.0, 100.0])
def test_the_fewest_steps_whose_images_stay(error, end_steps, monkeypatch):
    teacher = Teacher(error)
    monkeypatch.setattr(start, "generate_shared", lambda *a, **k: teacher.images(*a, **k))
    steps, changes = start.find_start(None, None, end_steps, 1.0)
    # Uniform pixels have a variance of 1/12.
    candidates = [end_steps * 2**k for k in range(1, 12) if 8 <= end_steps * 2**k]
    allowed = [n for n in candidates if 12 * (error / n - error / 512) ** 2 <= start.TOLERANCE]
    wanted = min((n for n in allowed if n < 512), default=next(n for n in candidates if n >= 1024))
    assert steps == wanted
    assert list(changes) == [n for n in candidates if n <= min(wanted, 511)]


def test_a_chain_that_ends_at_many_steps_asks_nothing(monkeypatch):
    monkeypatch.setattr(start, "generate_shared", lambda *_, **__: pytest.fail("no image can say anything"))
    assert [start.find_start(None, None, n, 1.0)[0] for n in (256, 300, 512, 1024)] == [1024, 1200, 1024, 2048]


def test_a_teacher_that_is_adopted_starts_as_the_paper_does(tmp_path, capsys):
    DDIMPipeline(tiny_unet(), DDIMScheduler(beta_schedule="linear")).save_pretrained(tmp_path / "stock")
    distill(chain(tmp_path / "stock", tmp_path / "run", start_steps="auto", end_steps=4, dry_run=True))
    said = capsys.readouterr().out
    assert "--start_steps auto is 1024" in said and "1024 -> 512" in said


def test_a_run_keeps_the_steps_that_it_began_with(teacher_folder, tmp_path, monkeypatch, capsys):
    options = {"start_steps": "auto", "end_steps": 4, "stage_factor": 4, "updates_per_stage": 3}
    monkeypatch.setattr(start, "TOLERANCE", 1.0)
    monkeypatch.setattr(start, "NUM_IMAGES", 8)
    distill(chain(teacher_folder, tmp_path / "run", **options))
    assert "--start_steps auto is 8" in capsys.readouterr().out
    record = json.loads((tmp_path / "run" / "chain.json").read_text())
    assert record["settings"]["start_steps"] == 8 and [s["name"] for s in record["stages"]] == ["steps-4"]
    # What another tolerance would say does not matter any more.
    monkeypatch.setattr(start, "TOLERANCE", 0.0)
    distill(chain(teacher_folder, tmp_path / "run", **options))
    assert "is finished already" in capsys.readouterr().out
    # A student starts at its own steps.
    distill(
        chain(tmp_path / "run" / "steps-4", tmp_path / "more", start_steps="auto", end_steps=2, updates_per_stage=1)
    )
    assert json.loads((tmp_path / "more" / "chain.json").read_text())["settings"]["start_steps"] == 4


def test_only_numbers_and_auto(teacher_folder, tmp_path):
    for wrong in ("automatic", "-4", "0", "4.5", 0):
        with pytest.raises(InputError, match="--start_steps must be a positive number, or auto"):
            chain(teacher_folder, tmp_path, start_steps=wrong).check()
    assert DistillationConfig(start_steps="64").start_steps == 64


def test_real_images_change_less_and_less(teacher_folder, monkeypatch):
    pipeline = ProgressiveDistillationPipeline.from_pretrained(teacher_folder)
    pipeline.unet.requires_grad_(False)
    monkeypatch.setattr(start, "NUM_IMAGES", 16), monkeypatch.setattr(start, "TOLERANCE", 0.0)
    _, changes = start.find_start(Accelerator(cpu=True), pipeline, 4, 1.0)
    values = list(changes.values())
    assert len(values) == 6 and values == sorted(values, reverse=True)
