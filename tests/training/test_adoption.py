"""Teachers of other schedules, other outputs, with classes and with guidance."""

import itertools
import json
import math

import pytest
import torch
from conftest import tiny_unet
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler

from diffusers_progdistill import ProgressiveDistillationPipeline, ProgressiveDistillationScheduler
from diffusers_progdistill.data import load_digits
from diffusers_progdistill.diffusion.adoption import EPSILON_LOG_SNR_MIN, ForeignTeacher
from diffusers_progdistill.diffusion.noise_schedule import add_noise, cosine_angle, log_snr, time_to_timestep
from diffusers_progdistill.diffusion.parameterization import to_sample
from diffusers_progdistill.errors import InputError
from diffusers_progdistill.training.adopt import adopt, adopting_parts
from diffusers_progdistill.training.chain import distill
from diffusers_progdistill.training.config import AdoptionConfig, DistillationConfig, TeacherConfig
from diffusers_progdistill.training.run import open_run
from diffusers_progdistill.training.stages import NOISY_END_WEIGHT, AdoptObjective
from diffusers_progdistill.training.teacher import train_teacher


OPTIONS = {
    "dataset_name": "digits",
    "report_to": "none",
    "train_batch_size": 16,
    "learning_rate": 2e-3,
    "logging_steps": 5,
}


def stock_teacher(folder, unet=None, pipeline=DDPMPipeline, **scheduler):
    pipeline(unet or tiny_unet(), DDPMScheduler(**scheduler)).save_pretrained(folder)
    return str(folder)


def adoption(teacher, folder, **options):
    return AdoptionConfig(
        pretrained_teacher_model=teacher, output_dir=str(folder), **{**OPTIONS, "adopt_updates": 10, **options}
    )


def chain(teacher, folder, **options):
    small = {"start_steps": 4, "end_steps": 1, "updates_per_stage": 2, "adopt_updates": 3}
    return DistillationConfig(
        pretrained_teacher_model=teacher, output_dir=str(folder), **{**OPTIONS, **small, **options}
    )


def schedule_of(**options):
    return ProgressiveDistillationScheduler(**options).schedule


SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid")


@pytest.mark.parametrize("num_train_timesteps", [1000, 400])
@pytest.mark.parametrize("beta_schedule", SCHEDULES)
def test_a_teacher_is_asked_at_the_timestep_of_the_same_log_snr(beta_schedule, num_train_timesteps):
    betas = DDPMScheduler(num_train_timesteps, beta_schedule=beta_schedule).betas.double()
    log_alphas_cumprod = torch.log1p(-betas).cumsum(0)
    expected = log_alphas_cumprod - torch.log(-torch.expm1(log_alphas_cumprod))  # log-SNR, in float64
    schedule = schedule_of(beta_schedule=beta_schedule, num_train_timesteps=num_train_timesteps)
    index = torch.arange(num_train_timesteps)
    angle = torch.atan(torch.exp(-expected / 2))
    assert (schedule.timesteps(angle) - index).abs().max() < 2e-2
    # Between two indices it is between them, and rises with the noise.
    middle = schedule.timesteps((angle[1:] + angle[:-1]) / 2)
    assert torch.all((middle > index[:-1]) & (middle < index[1:]))
    # Out of its range, its ends.
    assert schedule.timesteps(torch.tensor([1e-5, math.pi / 2 - 1e-6])).tolist() == [0.0, num_train_timesteps - 1.0]


def test_the_canonical_schedule_is_asked_at_its_own_timesteps():
    time = torch.linspace(0.01, 1, 50, dtype=torch.float64)
    asked = schedule_of().timesteps(cosine_angle(time))
    assert torch.allclose(asked.double(), time_to_timestep(time), atol=1e-3)


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction", "sample_epsilon"])
def test_an_optimal_teacher_of_any_type_gives_the_optimal_x(kind):
    # Data N(0, 1): x = alpha z is optimal, which makes epsilon = sigma z and v = 0.
    schedule = schedule_of(beta_schedule="linear", num_train_timesteps=1000)

    def network(z, timestep, labels):
        assert timestep.dtype == torch.float32
        angle = schedule.angles(timestep)[:, None, None, None]
        x, epsilon = torch.cos(angle) * z, torch.sin(angle) * z
        outputs = {"epsilon": epsilon, "sample": x, "v_prediction": 0 * z}
        return outputs.get(kind, torch.cat([x, epsilon], 1))

    teacher = ForeignTeacher(network, schedule, kind)
    angle = torch.linspace(0.02, teacher.angle_max, 40, dtype=torch.float64)
    z = torch.randn(40, 1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x, guidance = teacher.predict(z, angle, None)
    assert guidance == 0
    assert (x - torch.cos(angle)[:, None, None, None] * z).abs().max() < 1e-4


def test_noisier_than_the_teacher_knows_the_data_are_the_target_and_cleaner_its_first_index():
    schedule = schedule_of(beta_schedule="linear", num_train_timesteps=400)
    asked = []

    def network(z, timestep, labels):
        asked.append(timestep)
        return torch.zeros_like(z)

    teacher = ForeignTeacher(network, schedule, "sample")
    data, z = torch.full((4, 1, 2, 2), 5.0), torch.randn(4, 1, 2, 2)
    angle = torch.tensor([1e-3, 0.5, schedule.noisiest - 1e-3, schedule.noisiest + 1e-3])
    target = teacher.target(z, angle, None, data)
    assert target[:3].abs().max() == 0 and torch.equal(target[3], data[3])
    assert asked[0][0] == 0 and asked[0][3] == 399
    # epsilon says little about x where alpha is small.
    epsilon = ForeignTeacher(network, schedule_of(beta_schedule="linear", num_train_timesteps=1000), "epsilon")
    assert log_snr(torch.tensor(epsilon.angle_max)).item() == pytest.approx(EPSILON_LOG_SNR_MIN, abs=1e-3)


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_guidance_is_that_of_meng_et_al_in_one_doubled_batch(kind):
    schedule = schedule_of(beta_schedule="scaled_linear", num_train_timesteps=1000)
    calls = []

    def network(z, timestep, labels):
        calls.append(len(z))
        return z * 0.5 + labels.view(-1, 1, 1, 1) * 0.1

    z = torch.randn(3, 1, 2, 2, dtype=torch.float64)
    angle, labels = torch.tensor([0.3, 0.7, 1.2], dtype=torch.float64), torch.tensor([1, 2, 3])
    g = 2.5
    target = ForeignTeacher(network, schedule, kind, g, null_label=7).target(z, angle, labels, z)
    alpha, sigma = torch.cos(angle).view(-1, 1, 1, 1), torch.sin(angle).view(-1, 1, 1, 1)
    x = [to_sample(network(z, None, c), z, alpha, sigma, kind) for c in (labels, torch.full((3,), 7))]
    assert (target - (g * x[0] - (g - 1) * x[1])).abs().max() < 1e-12
    assert calls[0] == 6


@pytest.mark.parametrize("kind", ["v_prediction", "sample"])
@pytest.mark.parametrize("teacher_kind", ["epsilon", "v_prediction"])
def test_an_epsilon_teacher_is_trusted_with_snr_but_for_a_little(kind, teacher_kind):
    schedule = schedule_of(beta_schedule="linear", num_train_timesteps=1000)
    objective = AdoptObjective(ForeignTeacher(None, schedule, teacher_kind), kind, "truncated_snr", 1024)
    angle = torch.linspace(0.05, math.pi / 2 - 1e-4, 60, dtype=torch.float64)
    snr = torch.tan(angle) ** -2
    expected = snr.clamp(min=1)
    if teacher_kind == "epsilon":
        expected = torch.minimum(expected, torch.maximum(snr, NOISY_END_WEIGHT * (snr + 1)))
    # As a weight of the error of x; an error of v is sigma times smaller.
    got = objective.weight(angle) / (torch.sin(angle) ** 2 if kind == "v_prediction" else 1)
    assert torch.allclose(got, expected, rtol=1e-9)


def test_a_foreign_teacher_is_compared_unclipped(tmp_path):
    teacher = stock_teacher(tmp_path / "stock")
    assert DDPMPipeline.from_pretrained(teacher).scheduler.config.clip_sample
    run = open_run(adoption(teacher, tmp_path / "out"))
    assert not run.teacher.pipeline.scheduler.config.clip_sample


# Networks.


def x_errors(network, kind, teacher, quintiles=5):
    """
    Mean squared error of x against the teacher by quintile of the log-SNR, clean to noisy, for t uniform, as
    in training, where the teacher is the target.
    """
    data = load_digits().all_images().float() / 127.5 - 1
    generator = torch.Generator().manual_seed(3)
    angle = torch.linspace(1e-3, teacher.angle_max - 1e-3, 500)
    z = add_noise(data[:500], torch.randn(500, 1, 8, 8, generator=generator), angle[:, None, None, None])
    time = (angle - cosine_angle(0.0)) / (cosine_angle(1.0) - cosine_angle(0.0))
    with torch.no_grad():
        theirs, _ = teacher.predict(z, angle, None)
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


def errors_before_and_after(kind, beta_schedule, num_train_timesteps, folder, updates=300):
    teacher = trained_stock_teacher(
        folder / "stock",
        num_train_timesteps=num_train_timesteps,
        beta_schedule=beta_schedule,
        prediction_type=kind,
    )
    options = {"train_batch_size": 64, "learning_rate": 1e-3, "adam_beta2": 0.99}
    config = adoption(teacher, folder / "adopted", adopt_updates=updates, **options)
    run = open_run(config)
    network, _, _ = adopting_parts(run)
    before = x_errors(network.eval(), config.prediction_type, run.teacher.as_foreign())
    adopt(config)
    adopted = ProgressiveDistillationPipeline.from_pretrained(folder / "adopted")
    assert adopted.scheduler.schedule.is_canonical
    assert adopted.scheduler.config.prediction_type == "v_prediction"
    return before, x_errors(adopted.unet.eval(), "v_prediction", run.teacher.as_foreign())


GRID = list(itertools.product(("epsilon", "sample", "v_prediction"), SCHEDULES[:3], (1000, 400)))
FEW = [GRID[0], GRID[9], GRID[14]]


@pytest.mark.parametrize("case", [pytest.param(c, marks=[] if c in FEW else pytest.mark.slow) for c in GRID])
def test_every_teacher_is_adopted_closer_at_every_noise_level(case, tmp_path):
    before, after = errors_before_and_after(*case, tmp_path)
    assert all(a < b for a, b in zip(after, before)), (before, after)


@pytest.mark.parametrize("options", [{"dropout": 0.5}, {"center_input_sample": True}, {"add_attention": True}])
def test_odd_networks_are_adopted(options, tmp_path):
    unet = tiny_unet(**options) if "add_attention" not in options else attention_unet()
    teacher = stock_teacher(tmp_path / "stock", unet)
    adopt(adoption(teacher, tmp_path / "adopted"))
    adopted = ProgressiveDistillationPipeline.from_pretrained(tmp_path / "adopted")
    assert adopted.unet.config.center_input_sample == unet.config.center_input_sample
    assert torch.isfinite(adopted(num_inference_steps=2, output_type="pt").images).all()


def attention_unet():
    from diffusers import UNet2DModel

    return UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        attention_head_dim=4,
    )


def test_learned_variance_is_dropped_with_a_notice(tmp_path, caplog):
    unet = tiny_unet(out_channels=2)
    teacher = stock_teacher(tmp_path / "stock", unet, variance_type="learned_range")
    run = open_run(adoption(teacher, tmp_path / "adopted"))
    assert "predicts a variance too" in caplog.text
    z, timestep = torch.randn(2, 1, 8, 8), torch.tensor([10.0, 900.0])
    with torch.no_grad():
        assert torch.allclose(run.teacher.pipeline.unet(z, timestep).sample, unet(z, timestep).sample[:, :1])


@pytest.mark.parametrize("kind", ["sample_epsilon", "sample", "epsilon", "v_prediction"])
@pytest.mark.parametrize("teacher_kind", ["v_prediction", "sample_epsilon"])
def test_a_canonical_teacher_is_adopted_to_another_type_only(kind, teacher_kind, tmp_path):
    teacher = tmp_path / "teacher"
    options = {**OPTIONS, "max_train_steps": 3, "lr_warmup_steps": 0}
    train_teacher(TeacherConfig(output_dir=str(teacher), prediction_type=teacher_kind, **options))
    distill(chain(str(teacher), tmp_path / "run", prediction_type=kind))
    assert (tmp_path / "run" / "teacher").exists() == (kind != teacher_kind)
    student = ProgressiveDistillationPipeline.from_pretrained(tmp_path / "run" / "steps-1")
    assert student.scheduler.config.prediction_type == kind
    assert torch.isfinite(student(output_type="pt").images).all()


# Chains.


def test_a_chain_adopts_by_itself_and_counts_it(tmp_path, capsys):
    teacher = stock_teacher(tmp_path / "stock")
    config = chain(teacher, tmp_path / "run", eval_images=20)
    config.dry_run = True
    distill(config)
    said = capsys.readouterr().out
    assert "it is adopted first" in said and "not the canonical cosine one" in said
    assert not (tmp_path / "run").exists()
    config.dry_run = False
    distill(config)
    record = json.loads((tmp_path / "run" / "chain.json").read_text())
    assert [s["name"] for s in record["stages"]] == ["teacher", "steps-2", "steps-1"]
    assert record["stages"][0]["forward_units"] == 3 * 4
    assert "256" in record["evaluation"]["adopted"]
    card = (tmp_path / "run" / "README.md").read_text()
    assert "was adopted first" in card and "3 updates" in card
    adopted = ProgressiveDistillationPipeline.from_pretrained(tmp_path / "run" / "teacher")
    assert adopted.num_trained_steps is None and adopted.scheduler.schedule.is_canonical
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
            **OPTIONS,
        )
    )
    pipe = ProgressiveDistillationPipeline.from_pretrained(teacher)
    assert (pipe.num_classes, pipe.null_label, pipe.unet.config.num_class_embeds) == (10, 10, 11)
    distill(chain(str(teacher), tmp_path / "run", guidance_scale=2.0, class_column="label"))
    record = json.loads((tmp_path / "run" / "chain.json").read_text())
    assert record["stages"][0]["forward_units"] == 3 * 5
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
    foreign = ForeignTeacher(
        lambda z, t, c: unet(z, t, c).sample, scheduler.schedule, "v_prediction", 3.0, null_label=3
    )
    with torch.no_grad():
        x = foreign.target(latents, torch.full((2,), cosine_angle(1.0)), torch.tensor([0, 2]), latents)
    assert torch.allclose(image, x, atol=1e-5)


# Refusals.


def refused(config, verb, match):
    with pytest.raises(InputError, match=match) as caught:
        verb(config)
    assert "\n" not in str(caught.value)


def test_epsilon_with_zero_terminal_snr_is_refused(tmp_path):
    unet = tiny_unet()
    DDIMPipeline(unet, DDIMScheduler(rescale_betas_zero_snr=True)).save_pretrained(tmp_path / "stock")
    refused(adoption(str(tmp_path / "stock"), tmp_path / "out"), adopt, "zero terminal SNR")
    # v is fine there.
    DDIMPipeline(unet, DDIMScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction")).save_pretrained(
        tmp_path / "v"
    )
    adopt(adoption(str(tmp_path / "v"), tmp_path / "adopted"))


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
    refused(adoption(str(tmp_path / "ve"), tmp_path / "out"), adopt, "ScoreSdeVeScheduler has no betas")
    refused(chain(str(tmp_path / "ve"), tmp_path / "out"), distill, "ScoreSdeVeScheduler has no betas")
    save(tiny_unet(time_embedding_type="fourier"), DDPMScheduler(), tmp_path / "fourier")
    refused(adoption(str(tmp_path / "fourier"), tmp_path / "out"), adopt, "fourier")


def test_labels_and_guidance_that_are_missing_are_refused(tmp_path):
    teacher = stock_teacher(tmp_path / "classes", tiny_unet(num_class_embeds=10))
    guided = adoption(teacher, tmp_path / "out", guidance_scale=2.0, class_column="label")
    refused(guided, adopt, "needs a class-conditional")
    small = stock_teacher(tmp_path / "small", tiny_unet(num_class_embeds=4))
    refused(adoption(small, tmp_path / "out", class_column="label"), adopt, "10 classes")
    plain = stock_teacher(tmp_path / "plain")
    refused(adoption(plain, tmp_path / "out", guidance_scale=2.0), adopt, "it must be 1")
    refused(adoption(plain, tmp_path / "out", guidance_scale=0.5), adopt, "--guidance_scale must be")
    canonical = tmp_path / "canonical"
    ProgressiveDistillationPipeline(tiny_unet(), ProgressiveDistillationScheduler()).save_pretrained(canonical)
    refused(adoption(str(canonical), tmp_path / "out"), adopt, "already")
    refused(
        TeacherConfig(output_dir=str(tmp_path / "out"), label_dropout=0.1, **OPTIONS), train_teacher, "--class_column"
    )
    assert not (tmp_path / "out").exists()
