"""Meng et al.'s (2022) stochastic N-step sampler against the deterministic one, at the same network evaluations.

python benchmarks/quality/stochastic_sampler.py stock-chain --steps 8,4

The stochastic sampler jumps two steps of the grid and noises back one. It needs a student trained for the doubled
stride: the chain's N-step student teaches it with two of its steps, as many updates as that student had. The
deterministic rival is the N-step student itself, and, at equal training, that student trained on for as long.
"""

import argparse
import copy
import math
from pathlib import Path

import torch
from accelerate import Accelerator
from adopt_ratios import show

from diffusers_progdistill.data import load_digits
from diffusers_progdistill.diffusion.noise_schedule import add_noise, cosine_angle, time_to_timestep
from diffusers_progdistill.diffusion.parameterization import to_sample
from diffusers_progdistill.diffusion.targets import HalvingGrid, halving_target, second_prediction_weight
from diffusers_progdistill.evaluation.metrics import FrechetDistance, generate, noise_of
from diffusers_progdistill.pipelines.pipeline_progressive_distillation import ProgressiveDistillationPipeline
from diffusers_progdistill.training.config import DistillationConfig
from diffusers_progdistill.training.loop import train_stage
from diffusers_progdistill.training.monitor import Monitor
from diffusers_progdistill.training.stages import HalvingObjective, Objective, Stage


class DoubledStride(Objective):
    """The student at i/N learns where two 1/N steps of its teacher lead; at 1/N, where one leads."""

    def __init__(self, teacher, num_steps: int, kind: str):
        super().__init__(kind, "truncated_snr", 1024)
        self.teacher, self.num_steps = teacher, num_steps
        times = [i / num_steps for i in range(1, num_steps + 1)]
        middles = [max(t - 1 / num_steps, times[0]) for t in times]
        ends = [0.0, 0.0, *(cosine_angle(t) for t in times[: num_steps - 2])]
        rows = [
            [time_to_timestep(t) for t in times],
            [time_to_timestep(t) for t in middles],
            [cosine_angle(t) for t in times],
            [cosine_angle(t) for t in middles],
        ]
        weights = list(map(second_prediction_weight, rows[2], rows[3], ends))
        # At 1/N the first prediction is the target.
        weights[0] = 0.0
        self.grid = HalvingGrid(*(torch.tensor(row, dtype=torch.float32) for row in [*rows, weights]))

    def __call__(self, model, batch):
        rows = self.grid.at((batch.uniform * self.num_steps).long())
        z = add_noise(batch.images, batch.noise, rows.angle[:, None, None, None])
        with torch.no_grad():
            target = halving_target(lambda x, t: self.teacher(x, t).sample, z, rows, self.prediction_type)
        return self.compare(model, z, rows.timestep, rows.angle, target, None)


@torch.no_grad()
def sample(pipeline, num_images: int, num_steps: int, seed: int) -> torch.Tensor:
    """Jump 2/N, noise back 1/N, N times; the last jump, from 1/N, is to clean data."""
    z = noise_of(seed, 0, num_images, pipeline.latents_shape(1)[1:])
    generator = torch.Generator().manual_seed(seed)
    kind = pipeline.scheduler.config.prediction_type
    for i in range(num_steps, 0, -1):
        angle, end = cosine_angle(i / num_steps), cosine_angle((i - 2) / num_steps) if i > 2 else 0.0
        output = pipeline.unet(z, torch.tensor(time_to_timestep(i / num_steps))).sample
        x = to_sample(output, z, math.cos(angle), math.sin(angle), kind)
        z = math.sin(end) / math.sin(angle) * z + math.sin(angle - end) / math.sin(angle) * x
        if i > 1:
            up = cosine_angle((i - 1) / num_steps)
            scale = math.cos(up) / math.cos(end)
            deviation = math.sqrt(math.sin(up) ** 2 - (scale * math.sin(end)) ** 2)
            z = scale * z + deviation * torch.randn(z.shape, generator=generator)
    return (z / 2 + 0.5).clamp(0, 1)


def trained_on(folder: Path, num_steps: int, updates: int, data, doubled: bool):
    """The N-step student after as many updates again: for the doubled stride, or for its own."""
    pipeline = ProgressiveDistillationPipeline.from_pretrained(folder / f"steps-{num_steps}")
    teaching = num_steps if doubled else 2 * num_steps
    teacher = ProgressiveDistillationPipeline.from_pretrained(folder / f"steps-{teaching}")
    config = DistillationConfig(
        dataset_name="digits", train_batch_size=128, learning_rate=3e-3, lr_warmup_steps=20, adam_beta2=0.99
    )
    kind, student = pipeline.scheduler.config.prediction_type, copy.deepcopy(pipeline.unet)
    frozen = teacher.unet.eval().requires_grad_(False)
    if doubled:
        objective = DoubledStride(frozen, num_steps, kind)
    else:
        objective = HalvingObjective(frozen, kind, num_steps, kind, "truncated_snr", 1024)
    accelerator, stage = Accelerator(cpu=True), Stage("again", 7, updates, 5)
    monitor = Monitor(accelerator, None, 1)
    monitor.start(stage, 1, 1, 128)
    train_stage(accelerator, student, objective, data, stage, config, monitor, ema_decay=0.99)
    return ProgressiveDistillationPipeline(student.requires_grad_(False).eval(), pipeline.scheduler)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", default="8,4")
    parser.add_argument("--updates", type=int, default=400)
    parser.add_argument("--num_images", type=int, default=2000)
    options = parser.parse_args()
    data = load_digits()
    metric = FrechetDistance(data)
    for steps in map(int, options.steps.split(",")):
        own = ProgressiveDistillationPipeline.from_pretrained(options.folder / f"steps-{steps}")
        longer = trained_on(options.folder, steps, options.updates, data, doubled=False)
        doubled = trained_on(options.folder, steps, options.updates, data, doubled=True)
        for name, pipeline in (("", own), (", trained on", longer)):
            images = (generate(pipeline, options.num_images, steps, seed) for seed in range(1, 6))
            show(f"{steps} steps, deterministic{name}", [metric.distance(i) for i in images])
        images = (sample(doubled, options.num_images, steps, seed) for seed in range(1, 6))
        show(f"{steps} steps, stochastic", [metric.distance(i) for i in images])


if __name__ == "__main__":
    main()
