"""`--start_steps auto`: where the teacher's images no longer change."""

import functools
import json
import math
from types import SimpleNamespace

import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler
from helpers.chains import chain
from helpers.networks import tiny_unet
from helpers.stages import make_denoiser

from diffusers_progdistill import ProgressiveDistillationPipeline, ProgressiveDistillationScheduler
from diffusers_progdistill.denoisers.codec import PixelCodec
from diffusers_progdistill.errors import InputError
from diffusers_progdistill.evaluation import sampling
from diffusers_progdistill.evaluation.sampling import draw_noise, generate
from diffusers_progdistill.families import Model, open_model
from diffusers_progdistill.families.unet2d import UNet2DFamily
from diffusers_progdistill.pipelines.loading import ModelSource
from diffusers_progdistill.processes.betas import ANGLE_MIN, ANGLE_RANGE
from diffusers_progdistill.training import initial_steps as start
from diffusers_progdistill.training.chain import distill
from diffusers_progdistill.training.config import DistillationConfig


CPU = torch.device("cpu")
ALONE = SimpleNamespace(process_index=0, num_processes=1, is_main_process=True, device=CPU)
SPREADS = [0.02, 0.1, 0.3, 1.0, 2.5]


def angle_of(t):
    return ANGLE_MIN + ANGLE_RANGE * t


def gaussian_teacher(spread):
    """The perfect model of pixels of this standard deviation."""

    class Network(torch.nn.Module):
        def forward(self, z, timestep, return_dict=False):
            angle = angle_of((timestep.double() + 1) / 1024)[:, None, None, None]
            variance = spread**2 * angle.cos() ** 2 + angle.sin() ** 2
            return ((angle.cos() * angle.sin() * (1 - spread**2) / variance * z).float(),)

    pipeline = SimpleNamespace(latents_shape=lambda count: (count, 1, 8, 8))
    return Model(UNet2DFamily(), pipeline, make_denoiser(Network()), PixelCodec())


def tiny_teacher(**options):
    """A teacher with random weights."""
    pipeline = ProgressiveDistillationPipeline(tiny_unet(**options), ProgressiveDistillationScheduler())
    return UNet2DFamily().wrap(pipeline).freeze("cpu")


def read_scale(spread, num_steps, solver):
    """What every pixel of the noise is multiplied with, step by step in float64."""

    def x_of(z, phi):
        variance = spread**2 * math.cos(phi) ** 2 + math.sin(phi) ** 2
        return spread**2 * math.cos(phi) / variance * z

    def ddim(z, x, phi, end):
        return (math.sin(end) * z + math.sin(phi - end) * x) / math.sin(phi)

    z, stride = 1.0, 2 if solver == "midpoint" else 1
    for i in range(num_steps, 0, -stride):
        phi, end = angle_of(i / num_steps), angle_of((i - stride) / num_steps) if i > stride else 0.0
        x = x_of(z, phi)
        if solver == "midpoint":
            middle = angle_of((i - 1) / num_steps)
            x = x_of(ddim(z, x, phi, middle), middle)
        z = ddim(z, x, phi, end)
    return z


@functools.cache
def found_start(spread, end_steps, solver):
    return start.find_start(gaussian_teacher(spread), end_steps, solver, ALONE)


@pytest.fixture
def few_images(monkeypatch):
    """Every image changes alike where the teacher is Gaussian: a few are enough."""
    monkeypatch.setattr(start, "NUM_IMAGES", 32)


@pytest.mark.parametrize("solver", ["ddim", "midpoint"])
@pytest.mark.parametrize("end_steps", [1, 4, 7])
@pytest.mark.parametrize("spread", SPREADS)
def test_the_fewest_steps_whose_images_stay(spread, end_steps, solver, few_images):
    steps, changes = found_start(spread, end_steps, solver)
    noise = draw_noise(0, 0, start.NUM_IMAGES, (1, 8, 8))[0].double()

    def share(num_steps):
        images, reference = (
            (read_scale(spread, n, solver) * noise).clamp(-1, 1) for n in (num_steps, start.REFERENCE_STEPS[solver])
        )
        errors = (images - reference).square().mean((1, 2, 3))
        return (errors.median() / (reference - reference.mean(0)).square().mean()).item()

    candidates = [end_steps * 2**k for k in range(1, 12) if 8 <= end_steps * 2**k]
    tried = [n for n in candidates if n < start.REFERENCE_STEPS[solver]]
    most = next(n for n in candidates if n >= start.MOST_STEPS[solver])
    assert steps == next((n for n in tried if share(n) <= start.TOLERANCE), most)
    for n, change in changes.items():
        assert change == pytest.approx(share(n), rel=1e-2, abs=1e-9)


def test_the_midpoint_rule_needs_fewer(few_images):
    found = {solver: [found_start(spread, 1, solver)[0] for spread in SPREADS] for solver in ("ddim", "midpoint")}
    assert all(a <= b for a, b in zip(found["midpoint"], found["ddim"])) and found["midpoint"] != found["ddim"]


def test_a_chain_that_ends_at_many_steps_asks_nothing(monkeypatch):
    monkeypatch.setattr(start, "sample_teacher", lambda *_, **__: pytest.fail("no image can say anything"))
    assert [start.find_start(None, n, "ddim", ALONE)[0] for n in (256, 300, 512, 1024)] == [1024, 1200, 1024, 2048]
    assert [start.find_start(None, n, "midpoint", ALONE)[0] for n in (128, 150, 256)] == [256, 300, 512]


def test_a_teacher_that_is_converted_starts_as_the_paper_does(tmp_path, capsys):
    DDIMPipeline(tiny_unet(), DDIMScheduler(beta_schedule="linear")).save_pretrained(tmp_path / "stock")
    options = {"start_steps": "auto", "end_steps": 4, "dry_run": True}
    distill(chain(tmp_path / "stock", tmp_path / "run", **options, teacher_solver="ddim"))
    said = capsys.readouterr().out
    assert "--start_steps auto is 1024" in said and "1024 -> 512" in said
    # Of second order a quarter is nearer than that.
    distill(chain(tmp_path / "stock", tmp_path / "run", **options))
    assert "--start_steps auto is 256" in capsys.readouterr().out


def test_a_dry_run_does_not_sample_for_long(teacher_folder, tmp_path, monkeypatch, capsys):
    options = {"start_steps": "auto", "end_steps": 4, "dry_run": True}
    monkeypatch.setattr(start, "DRY_RUN_SECONDS", 0.0)
    monkeypatch.setattr(start, "sample_teacher", lambda *_: pytest.fail("too slow"))
    distill(chain(teacher_folder, tmp_path / "run", **options))
    said = capsys.readouterr().out
    assert "--start_steps auto: at most 256; not looked for" in said and "256 -> 128" in said


@pytest.mark.parametrize("world", [2, 3, 8])
def test_processes_share_the_images(world, monkeypatch):
    teacher = tiny_teacher()
    whole, parts = start.sample_teacher(teacher, 4, "midpoint", ALONE), []
    monkeypatch.setattr(sampling, "gather_object", lambda mine: parts.extend(mine) or parts)
    for rank in range(world):
        others = SimpleNamespace(process_index=rank, num_processes=world, is_main_process=rank == 0, device=CPU)
        images = start.sample_teacher(teacher, 4, "midpoint", others)
    # The last process gathers what all have made.
    assert torch.equal(images, whole)


def test_a_run_keeps_the_steps_that_it_began_with(teacher_folder, tmp_path, monkeypatch, capsys):
    options = {"start_steps": "auto", "end_steps": 4, "stage_factor": 4, "updates_per_stage": 3}
    monkeypatch.setattr(start, "TOLERANCE", 1.0)
    monkeypatch.setattr(start, "NUM_IMAGES", 8)
    distill(chain(teacher_folder, tmp_path / "run", **options))
    assert "--start_steps auto is 8" in capsys.readouterr().out
    record = json.loads((tmp_path / "run" / "chain.json").read_text())
    assert record["settings"]["teacher_solver"] == "midpoint"
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


@pytest.mark.parametrize("solver, tried", [("ddim", 4), ("midpoint", 3)])
def test_real_images_change_less_and_less(solver, tried, teacher_folder, monkeypatch):
    teacher = open_model(ModelSource(str(teacher_folder), "teacher")).freeze("cpu")
    monkeypatch.setattr(start, "REFERENCE_STEPS", {"ddim": 128, "midpoint": 64})
    monkeypatch.setattr(start, "NUM_IMAGES", 16), monkeypatch.setattr(start, "TOLERANCE", 0.0)
    _, changes = start.find_start(teacher, 4, solver, ALONE)
    values = list(changes.values())
    assert len(values) == tried and values == sorted(values, reverse=True)


@pytest.mark.parametrize("classes", [None, 3])
def test_its_images_are_the_samplers(classes):
    """With DDIM they are those that the pipeline makes from the same noise, with classes in turn."""
    teacher = tiny_teacher(num_class_embeds=classes)
    images = start.sample_teacher(teacher, 16, "ddim", ALONE)[:8]
    assert (images / 2 + 0.5 - generate(teacher.pipeline, 8, 16)).abs().max() < 1e-5
