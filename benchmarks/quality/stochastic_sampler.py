"""Meng et al.'s (2022) stochastic N-step sampler against the deterministic one, at the same network evaluations.

python benchmarks/quality/stochastic_sampler.py demo-digits --steps 8,4

For each N the N-step student of the folder is made into a stochastic one (`distill --stochastic_sampler`). The
baselines: the N-step student itself, and, at equal training, that student trained on for as many updates (the student
of 2N steps is distilled into it again). Five sampling seeds of each, for every training seed.
"""

import argparse
from pathlib import Path

import torch
from accelerate import Accelerator
from conversion_ratios import chain_of, show

from diffusers_progdistill.data import load_digits
from diffusers_progdistill.evaluation.metrics import ImageMetrics
from diffusers_progdistill.evaluation.sampling import generate
from diffusers_progdistill.families import open_model
from diffusers_progdistill.objectives.distillation import DistillationLoss, DistillationObjective
from diffusers_progdistill.objectives.stage import Stage
from diffusers_progdistill.pipelines.pipeline_progressive_distillation import ProgressiveDistillationPipeline
from diffusers_progdistill.pipelines.source import ModelSource
from diffusers_progdistill.processes.targets import TargetGrid
from diffusers_progdistill.training.chain import distill
from diffusers_progdistill.training.loop import StageTrainer
from diffusers_progdistill.training.monitor import Monitor
from diffusers_progdistill.training.run import Run
from diffusers_progdistill.training.task import StageTask


def stochastic(folder: Path, steps: int, updates: int, seed: int) -> ProgressiveDistillationPipeline:
    """The stochastic N-step student, beside the folder; made if it is not there."""
    output = f"{folder}-stochastic-{steps}-seed-{seed}"
    options = {"start_steps": steps, "end_steps": steps, "updates_per_stage": updates, "stochastic_sampler": True}
    options["seed"] = seed
    distill(chain_of(str(folder / f"steps-{steps}"), output, **options))
    return ProgressiveDistillationPipeline.from_pretrained(f"{output}/steps-{steps}")


def trained_on(folder: Path, steps: int, updates: int, data, seed: int) -> ProgressiveDistillationPipeline:
    """The N-step student after as many updates again."""
    model, teacher = (
        open_model(ModelSource(str(folder / f"steps-{count}"))).freeze("cpu") for count in (steps, 2 * steps)
    )
    config, accelerator = chain_of("", "", seed=seed), Accelerator(cpu=True)
    grid = TargetGrid.create(model.denoiser.process, steps).to("cpu")
    student, loss = model.denoiser.make_student(), DistillationLoss("truncated_snr")
    objective = DistillationObjective(student, teacher.denoiser, grid, loss)
    decay = config.ema_decay if config.use_ema else None
    # The seeds of its order and noise are none that a chain of the demo uses.
    task = StageTask(Stage("again", updates, 5, num_steps=7), objective, model.scheduler, decay)
    monitor = Monitor(accelerator, None, task.stage.forward_passes)
    monitor.start(task.stage, 1, 1, config.train_batch_size)
    result = StageTrainer(Run(config, accelerator, data, config.train_batch_size), task, monitor).train()
    return ProgressiveDistillationPipeline(result.network.requires_grad_(False), model.scheduler)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", default="8,4")
    parser.add_argument("--updates", type=int, default=400)
    parser.add_argument("--training_seeds", type=int, default=3)
    parser.add_argument("--num_images", type=int, default=2000)
    options = parser.parse_args()
    torch.manual_seed(0)
    data = load_digits()
    metric = ImageMetrics(data)
    for steps in map(int, options.steps.split(",")):
        rows = {"deterministic": [ProgressiveDistillationPipeline.from_pretrained(options.folder / f"steps-{steps}")]}
        seeds = range(options.training_seeds)
        rows["deterministic, trained on"] = [
            trained_on(options.folder, steps, options.updates, data, s) for s in seeds
        ]
        rows["stochastic"] = [stochastic(options.folder, steps, options.updates, s) for s in seeds]
        for name, pipelines in rows.items():
            images = (generate(p, options.num_images, steps, seed) for p in pipelines for seed in range(1, 6))
            show(f"{steps} steps, {name}", [metric.distance(i) for i in images])


if __name__ == "__main__":
    main()
