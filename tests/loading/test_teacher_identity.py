"""On resume the teacher is compared by content: where it lies and in which files does not matter, what it is does."""

import json
import os
import shutil
from dataclasses import asdict

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel
from helpers.networks import tiny_unet
from safetensors.torch import load_file, save_file

from diffusers_progdistill import DistillationConfig, ProgressiveDistillationScheduler, distill, save_pipeline
from diffusers_progdistill.commands.main import main
from diffusers_progdistill.errors import InputError
from diffusers_progdistill.identity import teacher_key
from diffusers_progdistill.record import Record


WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def teacher_in(folder, **scheduler):
    save_pipeline(tiny_unet(widths=(8,)), ProgressiveDistillationScheduler(**scheduler), folder)
    return folder


def nudge(folder):
    """Other weights in the same place."""
    state = load_file(folder / WEIGHTS)
    state["conv_in.bias"][0] += 1e-3
    save_file(state, folder / WEIGHTS)


def config_of(teacher, folder, **options):
    small = {"start_steps": 4, "end_steps": 2, "updates_per_stage": 1, "train_batch_size": 4}
    where = {"dataset_name": "digits", "report_to": "none", "output_dir": str(folder)}
    return DistillationConfig(pretrained_teacher_model=str(teacher), **{**where, **small, **options})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run and its teacher, to be copied."""
    folder = tmp_path_factory.mktemp("identity")
    distill(config_of(teacher_in(folder / "teacher"), folder / "run"))
    return folder


@pytest.fixture
def begun(finished, tmp_path):
    """A run whose student is gone: it is made again when the run goes on."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "run" / "chain.json"
    content = json.loads(path.read_text())
    content["settings"]["pretrained_teacher_model"] = str(tmp_path / "teacher")
    path.write_text(json.dumps({**content, "finished": False}))
    shutil.rmtree(tmp_path / "run" / "steps-2")
    return tmp_path


def settings_in(folder):
    return json.loads((folder / "run" / "chain.json").read_text())["settings"]


def moved(folder):
    return shutil.move(folder / "teacher", folder / "elsewhere")


def linked(folder):
    shutil.move(folder / "teacher", folder / "elsewhere")
    (folder / "teacher-link").symlink_to(folder / "elsewhere")
    return folder / "teacher-link"


def as_bin(folder):
    torch.save(load_file(folder / "teacher" / WEIGHTS), folder / "teacher/unet/diffusion_pytorch_model.bin")
    (folder / "teacher" / WEIGHTS).unlink()
    return folder / "teacher"


def as_variant(folder):
    weights = folder / "teacher" / WEIGHTS
    weights.rename(weights.with_name("diffusion_pytorch_model.fp32.safetensors"))
    return folder / "teacher"


@pytest.mark.parametrize("change", [moved, linked, as_bin, as_variant])
def test_the_same_teacher_elsewhere_goes_on(begun, change):
    place = change(begun)
    distill(config_of(place, begun / "run", variant="fp32" if change is as_variant else None))
    assert (begun / "run/steps-2/model_index.json").exists()
    assert settings_in(begun)["pretrained_teacher_model"] == str(place)


def test_a_relative_path_is_the_same_teacher(begun, monkeypatch):
    monkeypatch.chdir(begun)
    for place in ("teacher", "./teacher", os.path.join("run", "..", "teacher")):
        Record(begun / "run", settings_in(begun) | {"pretrained_teacher_model": place})
    distill(config_of("teacher", begun / "run"))
    assert settings_in(begun)["pretrained_teacher_model"] == "teacher"


def test_a_name_on_the_hub_is_its_local_copy(begun, hub):
    folder = begun / "teacher"
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    hub.add_repo("me/teacher", files=files)
    distill(config_of("me/teacher", begun / "run"))
    assert settings_in(begun)["pretrained_teacher_model"] == "me/teacher"


def other_betas(folder):
    config = json.loads((folder / "scheduler/scheduler_config.json").read_text())
    DDPMScheduler(prediction_type=config["prediction_type"]).save_pretrained(folder / "scheduler")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "scheduler": ["diffusers", "DDPMScheduler"]}))


def other_act(folder):
    path = folder / "unet/config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "norm_eps": 1e-3}))


@pytest.mark.parametrize("change", [nudge, other_betas, other_act])
def test_another_teacher_in_the_same_place_is_refused(begun, change):
    change(begun / "teacher")
    with pytest.raises(InputError, match="is not the teacher of the run"):
        distill(config_of(begun / "teacher", begun / "run"))
    assert not (begun / "run/steps-2").exists()


def test_evaluate_refuses_a_run_whose_teacher_was_exchanged(finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "run" / "chain.json"
    path.write_text(path.read_text().replace(str(finished), str(tmp_path)))
    nudge(tmp_path / "teacher")
    assert main(["evaluate", str(tmp_path / "run"), "--num_images=4", "--steps=1"]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("progdistill")]
    assert len(said) == 1 and "is not the teacher" in said[0]


def test_the_key_of_a_teacher():
    """It sees what changes the images, not how a config is written."""
    unet, scheduler = tiny_unet(widths=(8,)), ProgressiveDistillationScheduler()
    key = teacher_key(unet, scheduler)
    spelled = UNet2DModel(**{k: v for k, v in unet.config.items() if not k.startswith("_")})
    spelled.load_state_dict(unet.state_dict())
    spelled.register_to_config(down_block_types=["DownBlock2D"], num_train_timesteps=None, _name_or_path="x")
    assert teacher_key(spelled, ProgressiveDistillationScheduler(clip_sample=True)) == key
    assert teacher_key(unet, ProgressiveDistillationScheduler(prediction_type="sample")) != key
    assert teacher_key(unet, ProgressiveDistillationScheduler(num_train_timesteps=512)) != key
    with torch.no_grad():
        next(unet.parameters()).flatten()[0].add_(1e-6)
    assert teacher_key(unet, scheduler) != key


def test_a_resumed_run_has_options_of_its_own(begun):
    config = config_of(begun / "teacher", begun / "run", start_steps="auto")
    before = asdict(config)
    distill(config)
    assert asdict(config) == before


def test_push_refuses_a_damaged_student(finished, tmp_path, hub, capsys):
    """As `sample` and `evaluate` do; nothing reaches the Hub."""
    shutil.copytree(finished / "run", tmp_path / "run")
    weights = tmp_path / "run/steps-2" / WEIGHTS
    state = load_file(weights)
    state.pop("conv_out.bias")
    save_file(state, weights)
    assert main(["push", str(tmp_path / "run"), "--hub_model_id=me/students"]) == 2
    assert "conv_out.bias is missing" in capsys.readouterr().err and not hub.requests
