"""The rival of a chain: one consistency-style student of the same teacher, at the same cost in forward passes.

python benchmarks/quality/consistency_student.py train --config CONFIG.yaml --output_dir consistency --forward_passes N
python benchmarks/quality/consistency_student.py measure consistency --config CONFIG.yaml --evaluation FOLDER

diffusers' latent-consistency recipe (Luo et al., 2023) for a UNet2DModel on pixels: 64 DDIM steps of the teacher, one
of which the student is to be consistent over; boundary scalings with sigma_data 0.5 and timesteps times 10; a
pseudo-Huber loss with c = 0.001 on x; the target network is the student's average with decay 0.95, and it is what is
measured. Without text there is no guidance to embed. An update costs 5 forward passes, as a halving does: the
student's three, one of the teacher, one of the target network. Optimizer, batch and learning rate are the chain's.

Sampled as diffusers' LCMScheduler does, with fresh noise after each step ("consistency"), and with the noise that its
prediction implies ("consistency, DDIM").
"""

import argparse
import copy
from pathlib import Path

import torch
from accelerate import Accelerator

from diffusers_progdistill.commands.parsing import parse
from diffusers_progdistill.data import load_data
from diffusers_progdistill.evaluation.figures import Evaluation, EvaluationSettings, Subject
from diffusers_progdistill.evaluation.metrics import load_metrics
from diffusers_progdistill.evaluation.store import format_table, summarize_rows
from diffusers_progdistill.pipelines.pipeline_progressive_distillation import ProgressiveDistillationPipeline
from diffusers_progdistill.processes.betas import add_noise, cosine_angle, time_to_timestep
from diffusers_progdistill.processes.prediction import to_sample
from diffusers_progdistill.training.config import DistillationConfig
from diffusers_progdistill.training.network import student_network
from diffusers_progdistill.training.run import open_run, run_alone
from diffusers_progdistill.training.stage import Examples, Objective, Stage


GRID_STEPS, TARGET_DECAY, HUBER_C = 64, 0.95, 1e-3
SIGMA_DATA, TIMESTEP_SCALING = 0.5, 10.0


def consistency(network, z, timestep, angle, labels, prediction_type):
    """The consistency function f(z, t): x for all but the cleanest images."""
    output = network(z, timestep, class_labels=labels, return_dict=False)[0].float()
    angle = angle[:, None, None, None]
    x = to_sample(output, z, torch.cos(angle), torch.sin(angle), prediction_type)
    scaled = (timestep * TIMESTEP_SCALING)[:, None, None, None]
    skip = SIGMA_DATA**2 / (scaled**2 + SIGMA_DATA**2)
    return skip * z + scaled / (scaled**2 + SIGMA_DATA**2).sqrt() * x


class ConsistencyObjective(Objective):
    """f(z_t, t) is to be what the average's f is after one DDIM step of the teacher."""

    def __init__(self, teacher, student, prediction_type: str, num_train_timesteps: int):
        super().__init__(prediction_type, "constant", num_train_timesteps)
        self.teacher, self.student = teacher, student
        # After an interruption the average begins at the student: it remembers some twenty updates.
        self.average = copy.deepcopy(student).requires_grad_(False).eval()
        self.started = False

    @torch.no_grad()
    def examples(self, batch) -> Examples:
        new, old = list(self.student.parameters()), list(self.average.parameters())
        torch._foreach_lerp_(old, new, 1 - TARGET_DECAY if self.started else 1.0)
        self.started = True
        index = 1 + (batch.uniform * GRID_STEPS).long()
        time, time_next = index / GRID_STEPS, (index - 1) / GRID_STEPS
        angle, angle_next = cosine_angle(time), cosine_angle(time_next)
        timestep, timestep_next = (time_to_timestep(t, self.num_train_timesteps) for t in (time, time_next))
        z = add_noise(batch.images, batch.noise, angle[:, None, None, None])
        output = self.teacher(z, timestep, batch.labels, return_dict=False)[0]
        alpha, sigma = torch.cos(angle)[:, None, None, None], torch.sin(angle)[:, None, None, None]
        x = to_sample(output, z, alpha, sigma, self.prediction_type)
        z_next = add_noise(x, (z - alpha * x) / sigma, angle_next[:, None, None, None])
        target = consistency(self.average, z_next, timestep_next, angle_next, batch.labels, self.prediction_type)
        # Clean data are their own image.
        return Examples(z, timestep, angle, torch.where((index == 1)[:, None, None, None], x, target), batch.labels)

    def loss(self, model, examples: Examples) -> torch.Tensor:
        e = examples
        made = consistency(model, e.z, e.timestep, e.angle, e.labels, self.prediction_type)
        return ((made - e.target).square() + HUBER_C**2).sqrt().sub(HUBER_C).mean()


class ConsistencyPipeline(ProgressiveDistillationPipeline):
    """Multistep consistency sampling at t = 1, (N - 1)/N, ... 1/N."""

    fresh_noise = True

    @torch.no_grad()
    def __call__(self, batch_size, class_labels, num_inference_steps, generator, latents, **_):
        config, count = self.scheduler.config, num_inference_steps
        labels = self.prepare_class_labels(class_labels, batch_size, self.device)
        z = latents.to(self.device)
        for i in range(count, 0, -1):
            time = torch.full((batch_size,), i / count, device=self.device)
            angle, timestep = cosine_angle(time), time_to_timestep(time, config.num_train_timesteps)
            x = consistency(self.unet, z, timestep, angle, labels, config.prediction_type)
            if i > 1:
                if self.fresh_noise:
                    noise = torch.stack([torch.randn(z.shape[1:], generator=g) for g in generator]).to(z)
                else:
                    angles = angle[:, None, None, None]
                    noise = (z - torch.cos(angles) * x) / torch.sin(angles)
                z = add_noise(x, noise, cosine_angle(time - 1 / count)[:, None, None, None])
        return argparse.Namespace(images=self.decode(x, "pt"))


def train(config: DistillationConfig, forward_passes: int):
    """Train the student into the output folder; a run that was stopped goes on."""
    run = open_run(config)
    teacher = run.teacher.pipeline
    student = student_network(teacher.unet)
    num_train = teacher.scheduler.config.num_train_timesteps
    objective = ConsistencyObjective(teacher.unet, student, config.prediction_type, num_train)
    # Its targets move with its average, so each serves one update, whatever the options say.
    stage = Stage("steps-1", 1, round(forward_passes / 5), 5)
    run_alone(run, student, objective, teacher.scheduler, stage, TARGET_DECAY)


def measure(config: DistillationConfig, folder: Path, options):
    """Add its figures to the `evaluation.json` of a folder, with the noise and the features of the others."""
    accelerator, pipelines = Accelerator(cpu=not torch.accelerator.is_available()), []
    for fresh in (True, False):
        pipeline = ConsistencyPipeline.from_pretrained(folder).to(accelerator.device)
        pipeline.unet.eval().requires_grad_(False)
        pipeline.fresh_noise = fresh
        pipelines.append(("consistency" if fresh else "consistency, DDIM", pipeline))
    unet = pipelines[0][1].unet.config
    data = load_data(config, unet.in_channels, unet.sample_size)
    config.feature_extractor = options.feature_extractor
    metrics = load_metrics(config, options.num_images, data, accelerator)
    seeds, steps = ([int(word) for word in text.split(",")] for text in (options.seeds, options.steps))
    settings = EvaluationSettings(options.num_images, tuple(seeds))
    evaluation = Evaluation(options.evaluation, accelerator, metrics, settings)
    rows = evaluation.run([Subject(name, pipeline, steps) for name, pipeline in pipelines])
    print(format_table(summarize_rows(rows)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["train", "measure"])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--forward_passes", type=int)
    parser.add_argument("--evaluation", type=Path, default=Path())
    parser.add_argument("--num_images", type=int, default=2000)
    parser.add_argument("--seeds", default="1,2,3,4,5")
    parser.add_argument("--steps", default="1,2,4,8")
    parser.add_argument("--feature_extractor", default="classifier")
    options, rest = parser.parse_known_args()
    config = parse(DistillationConfig, rest, "progdistill distill", "the rest: options of `progdistill distill`")
    if options.what == "train":
        train(config, options.forward_passes)
    else:
        measure(config, options.folder, options)


if __name__ == "__main__":
    main()
