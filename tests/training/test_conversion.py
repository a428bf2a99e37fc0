"""Teachers of other schedules, other outputs, with classes and with guidance."""

import itertools
import json
from dataclasses import replace

import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler
from helpers.evaluations import distances
from helpers.networks import attention_unet, small_network, stock_teacher, tiny_unet

from diffusers_progdistill import ProgressiveDistillationPipeline, ProgressiveDistillationScheduler
from diffusers_progdistill.data import load_digits
from diffusers_progdistill.errors import InputError
from diffusers_progdistill.objectives.base import Batch
from diffusers_progdistill.objectives.conversion import ConversionObjective
from diffusers_progdistill.processes.base import NoiseLevel, add_noise
from diffusers_progdistill.processes.betas import cosine_angle, time_to_timestep
from diffusers_progdistill.processes.prediction import to_sample
from diffusers_progdistill.training import report
from diffusers_progdistill.training.chain import distill
from diffusers_progdistill.training.config import ConversionConfig, DistillationConfig, TeacherConfig
from diffusers_progdistill.training.convert import build_conversion, convert
from diffusers_progdistill.training.run import open_run
from diffusers_progdistill.training.teacher import train_teacher


OPTIONS = {
    "dataset_name": "digits",
    "report_to": "none",
    "train_batch_size": 16,
    "learning_rate": 2e-3,
    "logging_steps": 5,
}


def conversion(teacher, folder, **options):
    return ConversionConfig(
        pretrained_teacher_model=teacher, output_dir=str(folder), **{**OPTIONS, "conversion_updates": 10, **options}
    )


def chain(teacher, folder, **options):
    small = {"start_steps": 4, "end_steps": 1, "updates_per_stage": 2, "conversion_updates": 3}
    return DistillationConfig(
        pretrained_teacher_model=teacher, output_dir=str(folder), **{**OPTIONS, **small, **options}
    )


SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")


def test_a_foreign_teacher_is_compared_unclipped(tmp_path):
    teacher = stock_teacher(tmp_path / "stock")
    assert DDPMPipeline.from_pretrained(teacher).scheduler.config.clip_sample
    run = open_run(conversion(teacher, tmp_path / "out"))
    assert not run.teacher.model.pipeline.scheduler.config.clip_sample


# Networks.


def x_errors(network, kind, objective, quintiles=5):
    """
    Mean squared error of x against the teacher by quintile of the log-SNR, clean to noisy, for t uniform, as
    in training, where the teacher is the target.
    """
    data = load_digits().all_images().float() / 127.5 - 1
    generator = torch.Generator().manual_seed(3)
    angle = torch.linspace(1e-3, objective.max_angle - 1e-3, 500)
    z = add_noise(data[:500], torch.randn(500, 1, 8, 8, generator=generator), angle[:, None, None, None])
    time = (angle - cosine_angle(0.0)) / (cosine_angle(1.0) - cosine_angle(0.0))
    teacher = objective.teacher
    with torch.no_grad():
        theirs = teacher.predict_x0(z, NoiseLevel(angle, teacher.process.network_times(angle)), {})
        output = network(z, time_to_timestep(time), return_dict=False)[0]
    alpha, sigma = torch.cos(angle)[:, None, None, None], torch.sin(angle)[:, None, None, None]
    ours = to_sample(output, z, alpha, sigma, kind)
    return [part.mean().item() for part in (ours - theirs).square().flatten(1).mean(1).chunk(quintiles)]


def trained_stock_teacher(folder, updates=150, **options):
    """A tiny teacher that knows a little: trained as diffusers' own example does."""
    unet, scheduler = tiny_unet().train(), DDPMScheduler(**options)
    data = load_digits().all_images().float() / 127.5 - 1
    optimizer = torch.optim.Adam(unet.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(updates):
        x = data[torch.randint(len(data), (64,), generator=generator)]
        noise = torch.randn(x.shape, generator=generator)
        timesteps = torch.randint(scheduler.config.num_train_timesteps, (64,), generator=generator)
        kind = scheduler.config.prediction_type
        target = {"epsilon": noise, "sample": x}.get(kind)
        target = scheduler.get_velocity(x, noise, timesteps) if target is None else target
        output = unet(scheduler.add_noise(x, noise, timesteps), timesteps).sample
        torch.nn.functional.mse_loss(output, target).backward()
        optimizer.step()
        optimizer.zero_grad()
    DDPMPipeline(unet.eval(), scheduler).save_pretrained(folder)
    return str(folder)


def errors_before_and_after(kind, beta_schedule, num_train_timesteps, folder, teacher_updates=150, updates=300):
    teacher = trained_stock_teacher(
        folder / "stock",
        teacher_updates,
        num_train_timesteps=num_train_timesteps,
        beta_schedule=beta_schedule,
        prediction_type=kind,
    )
    options = {"train_batch_size": 64, "learning_rate": 1e-3, "adam_beta2": 0.99}
    config = conversion(teacher, folder / "converted", conversion_updates=updates, **options)
    run = open_run(config)
    objective = build_conversion(run).objective
    before = x_errors(objective.student.network.eval(), run.config.prediction_type, objective)
    convert(config)
    converted = ProgressiveDistillationPipeline.from_pretrained(folder / "converted")
    assert converted.scheduler.schedule.is_canonical
    assert converted.scheduler.config.prediction_type == "v_prediction"
    return before, x_errors(converted.unet.eval(), "v_prediction", objective)


# As little training as shows it; the rest of the grid is trained longer.
LITTLE = {"teacher_updates": 60, "updates": 80}
GRID = list(itertools.product(("epsilon", "sample", "v_prediction"), SCHEDULES, (1000, 400)))
FEW = [GRID[0], GRID[9], GRID[14]]


@pytest.mark.parametrize("case", [pytest.param(c, marks=[] if c in FEW else pytest.mark.slow) for c in GRID])
def test_every_teacher_is_converted_closer_at_every_noise_level(case, tmp_path):
    before, after = errors_before_and_after(*case, tmp_path, **(LITTLE if case in FEW else {}))
    assert all(a < b for a, b in zip(after, before)), (before, after)


@pytest.mark.parametrize("options", [{"dropout": 0.5}, {"center_input_sample": True}, {"add_attention": True}])
def test_odd_networks_are_converted(options, tmp_path):
    unet = tiny_unet(**options) if "add_attention" not in options else attention_unet()
    teacher = stock_teacher(tmp_path / "stock", unet)
    convert(conversion(teacher, tmp_path / "converted", conversion_updates=3))
    converted = ProgressiveDistillationPipeline.from_pretrained(tmp_path / "converted")
    assert converted.unet.config.center_input_sample == unet.config.center_input_sample
    assert torch.isfinite(converted(num_inference_steps=2, output_type="pt").images).all()


def test_learned_variance_is_dropped_with_a_notice(tmp_path, caplog):
    unet = tiny_unet(out_channels=2)
    teacher = stock_teacher(tmp_path / "stock", unet, variance_type="learned_range")
    run = open_run(conversion(teacher, tmp_path / "converted"))
    assert "predicts a variance too" in caplog.text
    z, timestep = torch.randn(2, 1, 8, 8), torch.tensor([10.0, 900.0])
    with torch.no_grad():
        assert torch.allclose(run.teacher.model.pipeline.unet(z, timestep).sample, unet(z, timestep).sample[:, :1])


@pytest.mark.parametrize("kind", ["sample_epsilon", "sample", "epsilon", "v_prediction"])
@pytest.mark.parametrize("teacher_kind", ["v_prediction", "sample_epsilon"])
def test_a_canonical_teacher_is_converted_to_another_type_only(kind, teacher_kind, tmp_path):
    teacher = tmp_path / "teacher"
    options = {
        **OPTIONS,
        "model_config_name_or_path": small_network(tmp_path),
        "max_train_steps": 3,
        "lr_warmup_steps": 0,
    }
    train_teacher(TeacherConfig(output_dir=str(teacher), prediction_type=teacher_kind, **options))
    distill(chain(str(teacher), tmp_path / "run", prediction_type=kind))
    assert (tmp_path / "run" / "teacher").exists() == (kind != teacher_kind)
    student = ProgressiveDistillationPipeline.from_pretrained(tmp_path / "run" / "steps-1")
    assert student.scheduler.config.prediction_type == kind
    assert torch.isfinite(student(output_type="pt").images).all()


# Chains.


def test_a_chain_converts_by_itself_and_counts_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(report, "REFERENCE_STEPS", 32)
    teacher = stock_teacher(tmp_path / "stock")
    config = chain(teacher, tmp_path / "run", eval_images=20)
    config.dry_run = True
    distill(config)
    said = capsys.readouterr().out
    assert "it is converted first" in said and "not the canonical cosine one" in said
    assert not (tmp_path / "run").exists()
    config.dry_run = False
    distill(config)
    record = json.loads((tmp_path / "run" / "chain.json").read_text())
    assert [s["name"] for s in record["stages"]] == ["teacher", "steps-2", "steps-1"]
    assert record["stages"][0]["forward_passes"] == 3 * 4
    assert ("converted", 32) in distances(tmp_path / "run")
    card = (tmp_path / "run" / "README.md").read_text()
    assert "was converted first" in card and "3 updates" in card
    converted = ProgressiveDistillationPipeline.from_pretrained(tmp_path / "run" / "teacher")
    assert converted.num_trained_steps is None and converted.scheduler.schedule.is_canonical
    # The same command again does nothing; an output folder with somebody's teacher is left alone.
    before = (tmp_path / "run" / "steps-1" / "unet" / "diffusion_pytorch_model.safetensors").stat().st_mtime_ns
    distill(config)
    after = (tmp_path / "run" / "steps-1" / "unet" / "diffusion_pytorch_model.safetensors").stat().st_mtime_ns
    assert before == after
    stock_teacher(tmp_path / "other" / "teacher")
    with pytest.raises(InputError, match="holds something else"):
        distill(chain(str(tmp_path / "other" / "teacher"), tmp_path / "other"))


def test_classes_and_guidance_from_teacher_to_students(tmp_path):
    teacher = tmp_path / "teacher"
    train_teacher(
        TeacherConfig(
            output_dir=str(teacher),
            class_column="label",
            label_dropout=0.5,
            max_train_steps=4,
            lr_warmup_steps=0,
            model_config_name_or_path=small_network(tmp_path),
            **OPTIONS,
        )
    )
    pipe = ProgressiveDistillationPipeline.from_pretrained(teacher)
    assert (pipe.num_classes, pipe.null_label, pipe.unet.config.num_class_embeds) == (10, 10, 11)
    distill(chain(str(teacher), tmp_path / "run", guidance_scale=2.0, class_column="label"))
    record = json.loads((tmp_path / "run" / "chain.json").read_text())
    assert record["stages"][0]["forward_passes"] == 3 * 5
    student = ProgressiveDistillationPipeline.from_pretrained(tmp_path / "run" / "steps-2")
    assert student.guidance_scale == 2.0
    assert student.id2label[7] == "7" and student.get_label_ids(["7", "3"]) == [7, 3]
    card = (tmp_path / "run" / "README.md").read_text()
    assert "guidance of scale 2" in card and "Classes 0 to 9." in card
    labels = student(2, ["3", "7"], output_type="pt", latents=torch.ones(2, 1, 8, 8)).images
    numbers = student(2, [3, 7], output_type="pt", latents=torch.ones(2, 1, 8, 8)).images
    assert torch.equal(labels, numbers)
    with pytest.raises(ValueError, match="folded into this model"):
        student(class_labels=3, guidance_scale=2.0)
    with pytest.raises(ValueError, match="class-conditional: pass `class_labels`"):
        student()
    with pytest.raises(InputError, match="folded into"):
        distill(chain(str(tmp_path / "run" / "steps-2"), tmp_path / "two", guidance_scale=3.0, start_steps=2))


def test_guided_sampling_of_a_teacher_is_the_folded_target(tmp_path):
    unet = tiny_unet(num_class_embeds=4)
    scheduler = ProgressiveDistillationScheduler()
    scheduler.register_to_config(_progdistill={"num_classes": 3, "null_label": 3})
    pipe = ProgressiveDistillationPipeline(unet, scheduler)
    pipe.set_progress_bar_config(disable=True)
    latents = torch.randn(2, 1, 8, 8)
    image = pipe(2, [0, 2], 1, latents=latents, output_type="latent", guidance_scale=3.0).images
    denoiser = pipe.denoiser
    objective = ConversionObjective(denoiser, "truncated_snr", replace(denoiser, guidance_scale=3.0))
    batch = Batch(latents, {"class_labels": torch.tensor([0, 2])}, None, None)
    with torch.no_grad():
        x = objective.make_target(latents, torch.full((2,), cosine_angle(1.0)), batch)
    assert torch.allclose(image, x, atol=1e-5)


# Refusals.


def refused(config, verb, match):
    with pytest.raises(InputError, match=match) as caught:
        verb(config)
    assert "\n" not in str(caught.value)


def test_epsilon_with_zero_terminal_snr_is_refused(tmp_path):
    unet = tiny_unet()
    DDIMPipeline(unet, DDIMScheduler(rescale_betas_zero_snr=True)).save_pretrained(tmp_path / "stock")
    refused(conversion(str(tmp_path / "stock"), tmp_path / "out"), convert, "zero terminal SNR")
    # v is fine there.
    DDIMPipeline(unet, DDIMScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction")).save_pretrained(
        tmp_path / "v"
    )
    convert(conversion(str(tmp_path / "v"), tmp_path / "converted"))


def test_variance_exploding_and_fourier_are_refused(tmp_path):
    from diffusers import DiffusionPipeline, ScoreSdeVeScheduler

    class Any(DiffusionPipeline):
        def __init__(self, unet, scheduler):
            super().__init__()
            self.register_modules(unet=unet, scheduler=scheduler)

    def save(unet, scheduler, folder):
        Any(unet, scheduler).save_pretrained(folder)
        index = json.loads((folder / "model_index.json").read_text())
        (folder / "model_index.json").write_text(json.dumps({**index, "_class_name": "DDPMPipeline"}))

    save(tiny_unet(), ScoreSdeVeScheduler(), tmp_path / "ve")
    refused(conversion(str(tmp_path / "ve"), tmp_path / "out"), convert, "ScoreSdeVeScheduler has no betas")
    refused(chain(str(tmp_path / "ve"), tmp_path / "out"), distill, "ScoreSdeVeScheduler has no betas")
    save(tiny_unet(time_embedding_type="fourier"), DDPMScheduler(), tmp_path / "fourier")
    refused(conversion(str(tmp_path / "fourier"), tmp_path / "out"), convert, "fourier")


def test_labels_and_guidance_that_are_missing_are_refused(tmp_path):
    teacher = stock_teacher(tmp_path / "classes", tiny_unet(num_class_embeds=10))
    guided = conversion(teacher, tmp_path / "out", guidance_scale=2.0, class_column="label")
    refused(guided, convert, "needs a class-conditional")
    small = stock_teacher(tmp_path / "small", tiny_unet(num_class_embeds=4))
    refused(
        conversion(small, tmp_path / "out", class_column="label"), convert, "does not know the classes 4, 5, 6 and 3"
    )
    plain = stock_teacher(tmp_path / "plain")
    refused(conversion(plain, tmp_path / "out", guidance_scale=2.0), convert, "it must be 1")
    refused(conversion(plain, tmp_path / "out", guidance_scale=0.5), convert, "--guidance_scale must be")
    canonical = tmp_path / "canonical"
    ProgressiveDistillationPipeline(tiny_unet(), ProgressiveDistillationScheduler()).save_pretrained(canonical)
    refused(conversion(str(canonical), tmp_path / "out"), convert, "already")
    refused(
        TeacherConfig(output_dir=str(tmp_path / "out"), label_dropout=0.1, **OPTIONS), train_teacher, "--class_column"
    )
    assert not (tmp_path / "out").exists()
