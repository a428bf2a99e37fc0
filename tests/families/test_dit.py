"""Chains of a `DiTPipeline`: on its own process, folded guidance, students that stock diffusers loads and samples."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers.utils.torch_utils import randn_tensor
from helpers import stock_calls
from helpers.image_folders import make_folder
from helpers.latent_networks import dit_chain, dit_teacher, edit_json
from helpers.processes import run, stopped_at, torchrun
from safetensors.torch import load_file

from diffusers_progdistill.commands.main import main
from diffusers_progdistill.errors import InputError
from diffusers_progdistill.families import open_model
from diffusers_progdistill.families.dit import DiTFamily
from diffusers_progdistill.families.stored import check_export
from diffusers_progdistill.objectives.base import Batch
from diffusers_progdistill.pipelines.source import ModelSource
from diffusers_progdistill.training.chain import build_distillation, distill
from diffusers_progdistill.training.plan import build_plan
from diffusers_progdistill.training.run import open_run


GUIDANCE = 2.0
NAMES = {label: f"class {label}" for label in range(1000)}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return Path(dit_teacher(tmp_path_factory.mktemp("teacher") / "dit", names=NAMES))


@pytest.fixture(scope="module")
def students(teacher, tmp_path_factory):
    """Students of 8, 4 and 2 steps: one chain from 32 to 8, with guidance, and one that goes on from there."""
    folder = tmp_path_factory.mktemp("chains")
    distill(dit_chain(teacher, folder / "first", end_steps=8, guidance_scale=GUIDANCE))
    distill(dit_chain(folder / "first" / "steps-8", folder / "rest", start_steps=8, stage_factor=2))
    return {8: folder / "first" / "steps-8", 4: folder / "rest" / "steps-4", 2: folder / "rest" / "steps-2"}


@pytest.fixture
def run_folder(students, tmp_path):
    """A copy of the chain of two students that a test may write to."""
    return Path(shutil.copytree(students[2].parent, tmp_path / "run"))


def open_folder(folder):
    return open_model(ModelSource(str(folder), "student"))


def words(config):
    """The words of `progdistill distill` for a config's options that are not the default."""
    default = type(config)()
    return [f"--{name}={value}" for name, value in vars(config).items() if value != getattr(default, name)]


def read_weights(folder):
    return {path.parts[-3]: path.read_bytes() for path in folder.glob("steps-*/transformer/*.safetensors")}


def call_stock(output, calls):
    """What `stock_calls.py` tells of each folder, and the images of the labels there."""
    script = Path(stock_calls.__file__)
    given = [f"{folder}:{steps}" for folder, steps in calls]
    environment = {**os.environ, "PYTHONPATH": ""}
    made = subprocess.run([sys.executable, script, output, *given], env=environment, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return json.loads(made.stdout.splitlines()[-1]), torch.load(output)


def sample_ours(folder, steps=None, **options):
    """The images of the same labels from the same noise by our sampler, as the stock pipeline has them."""
    pipeline = open_folder(folder).pipeline
    pipeline.set_progress_bar_config(disable=True)
    noise = randn_tensor(pipeline.latents_shape(4), generator=torch.Generator().manual_seed(0))
    return torch.as_tensor(pipeline(4, stock_calls.LABELS, steps, latents=noise, output_type="np", **options).images)


def test_stock_diffusers_samples_the_students_without_this_package(teacher, students, tmp_path):
    calls = [(teacher, 8), *((folder, steps) for steps, folder in students.items())]
    (of_teacher, *told), (_, *images) = call_stock(tmp_path / "images.pt", calls)
    for (steps, folder), student, made in zip(students.items(), told, images, strict=True):
        assert student["classes"] == ["DiTPipeline", "DDIMScheduler"]
        assert student["warnings"] == of_teacher["warnings"] and student["labels"] == of_teacher["labels"] != {}
        # One evaluation a step: no row for the null class, since guidance is folded in.
        assert student["rows"] == [len(stock_calls.LABELS)] * steps
        assert (made - sample_ours(folder)).abs().max() < 1e-4
    assert (images[0] - images[1]).abs().max() > 1e-3


def test_a_student_keeps_all_of_its_teacher_but_the_network_and_the_scheduler(teacher, students):
    changed = ("transformer", "scheduler", "model_index.json")
    for folder in students.values():
        names = [path.relative_to(teacher) for path in teacher.rglob("*") if path.is_file()]
        assert sorted(names) == sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
        kept = [name for name in names if name.parts[0] not in changed]
        assert kept and all((folder / name).read_bytes() == (teacher / name).read_bytes() for name in kept)
        index, of_teacher = (json.loads((place / "model_index.json").read_text()) for place in (folder, teacher))
        assert index == {**of_teacher, "scheduler": ["diffusers", "DDIMScheduler"]}
        config, before = (
            json.loads((place / "transformer" / "config.json").read_text()) for place in (folder, teacher)
        )
        assert config == before


def test_the_transformer_of_earlier_releases_is_distilled(teacher, tmp_path):
    """Published models name its class as diffusers did before it had one for DiT."""
    old = shutil.copytree(teacher, tmp_path / "old")
    edit_json(old / "model_index.json", transformer=["diffusers", "Transformer2DModel"])
    edit_json(old / "transformer" / "config.json", _class_name="Transformer2DModel")
    distill(dit_chain(old, tmp_path / "run", start_steps=4))
    student = tmp_path / "run" / "steps-2"
    index = json.loads((student / "model_index.json").read_text())
    assert index["transformer"] == ["diffusers", "DiTTransformer2DModel"]
    (of_teacher, told), images = call_stock(tmp_path / "images.pt", [(old, 2), (student, 2)])
    assert told["classes"] == ["DiTPipeline", "DDIMScheduler"] and set(told["warnings"]) <= set(of_teacher["warnings"])
    assert (images[1] - sample_ours(student)).abs().max() < 1e-4


@pytest.mark.parametrize("schedule", ["scaled_linear", "squaredcos_cap_v2"])
def test_one_step_on_other_betas(tmp_path, schedule):
    """Up to pure noise, where the factors of a step are as large as 20,000."""
    teacher = dit_teacher(tmp_path / "dit", beta_schedule=schedule)
    distill(dit_chain(teacher, tmp_path / "run", start_steps=4, end_steps=1))
    assert open_folder(tmp_path / "run" / "steps-1").num_trained_steps == 1


@pytest.mark.parametrize(
    "options, message",
    [
        ({"start_steps": 32, "end_steps": 16, "stage_factor": 2}, "a student of 16 steps cannot be stored"),
        ({"resolution": 16}, "--resolution 16"),
        ({"clip_loss": True}, "--clip_loss judges pixels"),
        ({"prediction_type": "v_prediction"}, "--prediction_type v_prediction must be epsilon"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(teacher, tmp_path, capsys, options, message):
    assert main(["distill", *words(dit_chain(teacher, tmp_path / "run", **options))]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert message in lines[-1] and lines[-1].startswith("progdistill"), lines
    assert not (tmp_path / "run" / "chain.json").exists()


def test_images_without_classes_are_refused(tmp_path, capsys):
    images = make_folder(tmp_path / "images", [f"{k}.png" for k in range(16)])
    options = {"dataset_name": None, "train_data_dir": str(images), "class_column": None}
    config = dit_chain(dit_teacher(tmp_path / "dit", channels=3), tmp_path / "run")
    assert main(["distill", *words(replace(config, **options))]) == 2
    assert "is class-conditional: name the column of the labels by --class_column" in capsys.readouterr().err


def test_guidance_is_not_folded_in_twice(students, tmp_path):
    config = dit_chain(students[8], tmp_path / "run", start_steps=8, guidance_scale=3.0)
    with pytest.raises(InputError, match="guidance of scale 2 is folded into"):
        distill(config)


def test_a_student_has_no_stochastic_sampler(students, tmp_path):
    options = {"start_steps": 8, "end_steps": 8, "stage_factor": 2, "stochastic_sampler": True}
    with pytest.raises(InputError, match="--stochastic_sampler"):
        distill(dit_chain(students[8], tmp_path / "run", **options))


def test_epsilon_at_pure_noise_is_refused(tmp_path):
    teacher = dit_teacher(tmp_path / "dit", rescale_betas_zero_snr=True)
    with pytest.raises(InputError, match="epsilon on a schedule with zero terminal SNR"):
        distill(dit_chain(teacher, tmp_path / "run"))


def test_other_parts_are_refused_by_the_index(teacher, tmp_path, capsys):
    other = shutil.copytree(teacher, tmp_path / "other")
    edit_json(other / "model_index.json", vae=["diffusers", "AsymmetricAutoencoderKL"])
    assert main(["distill", *words(dit_chain(other, tmp_path / "run"))]) == 2
    assert "a vae of AsymmetricAutoencoderKL: it must be AutoencoderKL" in capsys.readouterr().err.splitlines()[-1]


def open_stages(teacher, folder):
    """A chain with guidance from 8 steps over 4 to 2, as a run and its two stages, which are not trained."""
    options = {"start_steps": 8, "stage_factor": 2, "teacher_solver": "ddim", "guidance_scale": GUIDANCE}
    opened = open_run(dit_chain(teacher, folder, **options))
    return opened, build_plan(opened.config, opened.teacher)


def make_examples(objective, uniform):
    """What an objective makes of latents at these positions, with their batch."""
    generator = torch.Generator().manual_seed(0)
    data, noise = (torch.randn(len(uniform), 4, 4, 4, generator=generator) for _ in range(2))
    labels = torch.arange(len(uniform))
    return objective.make_examples(Batch(data, {"class_labels": labels}, torch.tensor(uniform), noise)), labels


def test_the_first_stage_alone_learns_the_guided_teacher(teacher, tmp_path):
    """Two DDIM steps of g eps(class) - (g - 1) eps(null), written out, and where one step must start for their end."""
    opened, (first, second) = open_stages(teacher, tmp_path / "run")
    objective = build_distillation(opened, opened.teacher.model, first).objective
    examples, labels = make_examples(objective, [0.1, 0.4, 0.6, 0.9])
    network, alphas_cumprod = opened.teacher.model.network, opened.teacher.model.scheduler.alphas_cumprod.double()

    for k, label in enumerate(labels):
        z, step = examples.z[k : k + 1].double(), k + 1
        times = [250 * step - 1, 250 * step - 126, 250 * step - 251]
        alpha = [1.0 if t < 0 else alphas_cumprod[t].sqrt().item() for t in times]
        sigma = [(1 - a * a) ** 0.5 for a in alpha]
        assert examples.time[k] == times[0]
        at = z
        for j in range(2):
            both = at.float().expand(2, -1, -1, -1), torch.tensor([times[j]] * 2)
            with torch.no_grad():
                output = network(*both, class_labels=torch.tensor([label, 1000])).sample[:, :4].double()
            eps = output[1:] + GUIDANCE * (output[:1] - output[1:])
            at = alpha[j + 1] * (at - sigma[j] * eps) / alpha[j] + sigma[j + 1] * eps
        ratio = sigma[2] / sigma[0]
        target = (at - ratio * z) / (alpha[2] - ratio * alpha[0])
        torch.testing.assert_close(examples.target[k : k + 1].double(), target, rtol=1e-3, atol=1e-3)

    student = opened.teacher.model.family.build_model(
        objective.student.network,
        build_distillation(opened, opened.teacher.model, first).scheduler,
        opened.teacher.model,
    )
    assert build_distillation(opened, student, second).objective.teacher.guidance_scale == 1


def test_students_say_which_guidance_is_folded_in(students):
    assert open_folder(students[8]).pipeline.guidance_scale == GUIDANCE
    with pytest.raises(ValueError, match="folded into this model"):
        sample_ours(students[8], guidance_scale=3.0)


def test_a_student_in_training_drops_no_labels_and_learns_no_variance(teacher, tmp_path):
    opened, (stage, _) = open_stages(teacher, tmp_path / "run")
    objective = build_distillation(opened, opened.teacher.model, stage).objective
    network = objective.student.network.train()
    batch = torch.randn(64, 4, 4, 4), torch.full((64,), 500), torch.arange(64)
    with torch.no_grad():
        of_student = [network(batch[0], batch[1], class_labels=batch[2]).sample for _ in range(2)]
        dropping = opened.teacher.model.network.train()
        of_teacher = [dropping(batch[0], batch[1], class_labels=batch[2]).sample for _ in range(2)]
        dropping.eval()
    assert torch.equal(*of_student) and not torch.equal(*of_teacher)

    examples, _ = make_examples(objective, [0.1, 0.4, 0.6, 0.9])
    sum(objective.compute_losses(network, examples).values()).mean().backward()
    # The rows of the last layer are (patch row, patch column, channel).
    gradient = network.proj_out_2.weight.grad.view(2, 2, 8, -1)
    assert gradient[:, :, :4].abs().amax(-1).min() > 0 and gradient[:, :, 4:].abs().max() == 0


@pytest.fixture(scope="module")
def whole(teacher, tmp_path_factory):
    """A chain of two stages that nobody stops."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert main(["distill", *resumed_words(teacher, folder)]) == 0
    return folder


def resumed_words(teacher, folder, **options):
    return words(dit_chain(teacher, folder, **{"updates_per_stage": 4, "checkpointing_steps": 2, **options}))


@pytest.mark.parametrize("update, more", [(3, {}), (6, {"resume_from_checkpoint": "steps-2-00000002"})])
def test_a_stopped_chain_goes_on_bit_for_bit(teacher, whole, tmp_path, update, more):
    """From the newest checkpoint, and from one that is named."""
    folder = tmp_path / "run"
    assert run(stopped_at(update, signal.SIGTERM, "distill", *resumed_words(teacher, folder)))[0] == 143
    assert main(["distill", *resumed_words(teacher, folder, **more)]) == 0
    assert read_weights(folder) == read_weights(whole) and len(read_weights(folder)) == 2


def test_two_processes_train_what_one_does(teacher, whole, tmp_path):
    folder = tmp_path / "run"
    status, output = run(torchrun("distill", *resumed_words(teacher, folder, train_batch_size=8)))
    assert status == 0, output
    for name in ("steps-8", "steps-2"):
        ours, one = (
            load_file(place / name / "transformer" / "diffusion_pytorch_model.safetensors")
            for place in (folder, whole)
        )
        # Adam makes a step of the learning rate of a gradient that is rounding alone, such as that of a key's bias.
        assert max((ours[key] - one[key]).abs().mean() for key in one) < 1e-3


def test_commands_take_the_students(hub, run_folder, teacher, tmp_path, capsys):
    picture = tmp_path / "made.png"
    options = ["--num_images=4", "--class_labels=class 3,7", f"--output={picture}"]
    assert main(["sample", str(run_folder / "steps-2"), *options]) == 0 and picture.stat().st_size > 0

    options = ["--num_images=8", "--steps=2", "--reference_steps=4", f"--cache_dir={tmp_path}"]
    assert main(["evaluate", str(run_folder), *options]) == 0
    told = capsys.readouterr().out
    assert "steps-2" in told and "steps-4" in told

    assert main(["card", str(run_folder)]) == 0
    card = (run_folder / "README.md").read_text()
    assert 'DiffusionPipeline.from_pretrained("steps-2")' in card
    assert "pipe(class_labels=[0], num_inference_steps=2, guidance_scale=1.0)" in card

    assert main(["push", str(run_folder), "--hub_model_id=me/dit"]) == 0
    repo = hub.repo("me/dit")
    assert set(repo.tags) == {"steps-4", "steps-2"}
    assert {name.split("/")[0] for name in repo.head.files} >= {"transformer", "vae", "scheduler", "model_index.json"}


def test_a_damaged_export_is_not_kept(students, tmp_path):
    """A scheduler that steps elsewhere is found, whatever its name."""
    student = open_folder(students[4])
    check = {"class_labels": [0], "guidance_scale": 1.0}
    check_export(students[4], "transformer", student, **check)
    for changed in ({"timestep_spacing": "leading"}, {"prediction_type": "sample"}, {"clip_sample": True}):
        folder = shutil.copytree(students[4], tmp_path / next(iter(changed)))
        edit_json(folder / "scheduler" / "scheduler_config.json", **changed)
        with pytest.raises(RuntimeError, match="away from what was trained"):
            check_export(folder, "transformer", student, **check)


@pytest.mark.parametrize(
    "options",
    [
        {"set_alpha_to_one": False},
        {"steps_offset": 1, "timestep_spacing": "leading"},
        {"clip_sample": True},
        {"thresholding": True},
        {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
    ],
)
def test_students_are_sampled_as_they_were_trained_whatever_the_teacher_asks_for(options, tmp_path):
    """The probe of each student, after it is written, would end the run."""
    distill(dit_chain(dit_teacher(tmp_path / "teacher", **options), tmp_path / "run", end_steps=8))
    config = json.loads((tmp_path / "run" / "steps-8" / "scheduler" / "scheduler_config.json").read_text())
    assert config["set_alpha_to_one"] and not config["clip_sample"] and not config["thresholding"]


def test_steps_that_would_not_be_stored_are_refused_before_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr(DiTFamily, "build_scheduler", lambda self, teacher, **metadata: teacher.scheduler)
    teacher = dit_teacher(tmp_path / "teacher", set_alpha_to_one=False)
    with pytest.raises(InputError, match="a student of 8 steps cannot be stored"):
        distill(dit_chain(teacher, tmp_path / "run", end_steps=8))
    assert not (tmp_path / "run").exists()
