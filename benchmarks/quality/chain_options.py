"""What moves the quality and the cost of a chain, on the digits, one change at a time.

python benchmarks/quality/chain_options.py OUTPUT TEACHER

TEACHER is the demo's (`demo-digits/teacher`). Each option is a chain from 32 steps to 1 with the demo's settings but
for 265 updates a stage and the plain squared loss, that differs in it alone, for three training seeds; distances of
the students of 8, 4, 2 and 1 steps, forward passes, seconds of training, and the difference of each distance from that
of the option `--against`: paired by training and sampling seed, with the 95 % interval of its mean (Student's t over
the training seeds, each the mean of its sampling seeds). A run that was stopped goes on. `--options` picks some, so
that several processes, each with a `--name`, can share them; a last call trains nothing, measures again what stands
under other names, and shows all of them together.
"""

import argparse
import dataclasses
import json
import statistics
from pathlib import Path

import torch
from measuring import DigitFigures
from scipy import stats

from diffusers_progdistill.commands.demo import chain_config
from diffusers_progdistill.objectives.base import Batch, Examples
from diffusers_progdistill.objectives.distillation import DistillationObjective
from diffusers_progdistill.processes.base import add_noise, expand_like
from diffusers_progdistill.record import Record
from diffusers_progdistill.training.chain import build_distillation, distill
from diffusers_progdistill.training.isolation import isolated
from diffusers_progdistill.training.launcher import describe_hardware
from diffusers_progdistill.training.monitor import Monitor
from diffusers_progdistill.training.plan import build_plan
from diffusers_progdistill.training.run import open_run
from diffusers_progdistill.training.signals import StopRequest
from diffusers_progdistill.training.student import make_student


# Of the students that are measured.
STEPS = (8, 4, 2, 1)
# Of each student of more than two steps.
UPDATES = 265
DDIM = {"teacher_solver": "ddim"}
BOTH = {"loss_type": "huber", "clip_loss": True}


def options_of(updates: int) -> dict[str, dict]:
    """What each chain changes: options of `distill`, or the objective of its first stage, for which it has none."""
    return {
        "squared loss": {},
        "both": BOTH,
        "both + four-fold + targets twice": {**BOTH, "stage_factor": 4, "reuse_targets": 2},
        "pseudo-Huber": {"loss_type": "huber"},
        "finished images": {"clip_loss": True},
        "as the paper": {"start_steps": 1024, **DDIM},
        "DDIM from 256": {"start_steps": 256, **DDIM},
        "DDIM from 128": {"start_steps": 128, **DDIM},
        "DDIM from 64": {"start_steps": 64, **DDIM},
        "DDIM from 128 + targets twice": {"start_steps": 128, "reuse_targets": 2, **DDIM},
        "DDIM from 128 + targets four times": {"start_steps": 128, "reuse_targets": 4, **DDIM},
        "start 64": {"start_steps": 64},
        "start 16": {"start_steps": 16},
        "targets twice": {"reuse_targets": 2},
        "targets four times": {"reuse_targets": 4},
        "four-fold": {"stage_factor": 4},
        "four-fold + targets twice": {"stage_factor": 4, "reuse_targets": 2},
        "updates / 2": {"updates_per_stage": updates // 2},
        "updates / 5": {"updates_per_stage": updates // 5},
        "updates / 10": {"updates_per_stage": updates // 10},
        "no average": {"use_ema": False},
        "aDDIM teacher": {"start_steps": 128, "objective": AddimObjective, **DDIM},
    }


class AddimObjective(DistillationObjective):
    """
    Where two aDDIM steps lead (Heek et al., 2024): DDIM whose noise makes up for the variance that x lost, with
    Var(x) = 0.1 / (2 + SNR). Only the chain's own teacher predicts a mean of many x, so it is for the first stage.
    """

    @torch.no_grad()
    def make_examples(self, batch: Batch, update: int = 0) -> Examples:
        index = (batch.uniform * self.num_steps).long()
        rows = self.grid.at(index)
        first, middle = (expand_like(rows.angles[:, k], batch.data).double() for k in range(2))
        z = add_noise(batch.data, batch.noise, first.float())
        # A last step ends in clean data, where no noise is made up for.
        end, current = torch.where(expand_like(index == 0, z), 0.0, 2 * middle - first), z.double()
        for k, (begin, to) in enumerate(((first, middle), (middle, end))):
            x = self.teacher.predict_x0(current.float(), rows.level(k), batch.conditioning).double()
            alpha, sigma, alpha_to, sigma_to = begin.cos(), begin.sin(), to.cos(), to.sin()
            noise = (current - alpha * x) / sigma
            variance = 0.1 / (2 + (alpha / sigma) ** 2)
            size = noise[0].numel() / noise.square().sum((1, 2, 3), keepdim=True)
            more = size * (alpha_to - alpha * sigma_to / sigma) ** 2 * variance
            current = alpha_to * x + torch.where(to == 0, 0.0, sigma_to**2 + more).sqrt() * noise
        ratio = end.sin() / first.sin()
        target = ((current - ratio * z.double()) / (end.cos() - ratio * first.cos())).float()
        return Examples(z, *rows.level(0), target, index == 0, batch.conditioning)


def make_chain(folder: Path, base, teacher: str, seed: int, changes: dict):
    """One chain, if it is not there."""
    changes = dict(changes)
    objective = changes.pop("objective", None)
    fixed = {"pretrained_teacher_model": teacher, "output_dir": str(folder), "eval_images": 0}
    config = dataclasses.replace(base, **fixed, seed=seed, **changes)
    if objective is not None:
        make_first_student(config, objective)
    distill(config)


@isolated()
def make_first_student(config, objective: type[DistillationObjective]):
    """The first student of a chain by another objective, if it is not there; the chain goes on from it."""
    run = open_run(config)
    stage = build_plan(run.config, run.teacher)[0]
    record = Record(Path(run.config.output_dir), run.settings())
    if record.stage(stage.name):
        return
    record.update(hardware=describe_hardware(run.accelerator))
    task, teacher = build_distillation(run, run.teacher.model, stage), run.teacher.model
    plain = task.objective
    task = dataclasses.replace(task, objective=objective(plain.student, plain.teacher, plain.grid, plain.loss))
    monitor = Monitor(run.accelerator, record.folder, stage.forward_passes)
    monitor.start(stage, 1, 1, run.global_batch)
    with StopRequest() as stop:
        make_student(run, task, teacher, monitor, record, stop)


def compare(rows: list[dict], others: list[dict]) -> str:
    """The difference of distances from the others', in per cent of those, and the 95 % interval of its mean."""
    key = [(row["training_seed"], row["seed"]) for row in rows]
    base = {(row["training_seed"], row["seed"]): row["frechet_distance"] for row in others}
    pairs = [(k[0], row["frechet_distance"] / base[k] - 1) for k, row in zip(key, rows) if k in base]
    by_training = [[d for seed, d in pairs if seed == t] for t in sorted({seed for seed, _ in pairs})]
    means = [100 * statistics.mean(part) for part in by_training]
    if len(means) < 2:
        return f"{means[0]:+.1f} %" if means else "-"
    mean, deviation = statistics.mean(means), statistics.stdev(means)
    half = stats.t.ppf(0.975, len(means) - 1) * deviation / len(means) ** 0.5
    return f"{mean:+5.1f} % [{mean - half:+.1f}, {mean + half:+.1f}]"


def show(folder: Path, names: list[str], against: str, seeds: list[int], figures: DigitFigures):
    """The table of everything that is measured."""
    rows = {}
    for row in figures.evaluation.rows:
        name, seed, steps = row["model"].rsplit(", ", 2)
        settings = figures.evaluation.settings
        asked = row["num_images"] == settings.num_images and row["seed"] in settings.seeds
        if asked and int(seed) in seeds:
            rows.setdefault((name, int(steps)), []).append({**row, "training_seed": int(seed)})
    print(f"{'option':<32}{'steps':>6}{'distance, median [range]':>30}{'passes':>8}{'seconds':>9}   against {against}")
    for name in names:
        records = [json.loads((chain_folder(folder, name, s) / "chain.json").read_text()) for s in seeds]
        passes = sum(stage["forward_passes"] for stage in records[0]["stages"])
        seconds = statistics.median(sum(stage["seconds"] for stage in r["stages"]) for r in records)
        for steps in STEPS:
            made = rows.get((name, steps), [])
            if not made:
                continue
            values = sorted(row["frechet_distance"] for row in made)
            spread = f"{statistics.median(values):.2f} [{values[0]:.2f}, {values[-1]:.2f}]"
            difference = compare(made, rows.get((against, steps), []))
            print(f"{name:<32}{steps:>6}{spread:>30}{passes:>8,}{seconds:>9.0f}   {difference}", flush=True)


def chain_folder(folder: Path, name: str, seed: int) -> Path:
    return folder / f"{name.replace(' / ', '-by-').replace(' ', '-')}-seed-{seed}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("teacher")
    parser.add_argument("--options", help="some of them, by commas")
    parser.add_argument("--against", default="squared loss", help="the option that the others are compared with")
    parser.add_argument("--scale", type=float, default=1.0, help="fraction of the demo's updates")
    parser.add_argument("--num_images", type=int, default=2000)
    parser.add_argument("--seeds", default="1,2,3,4,5", help="of sampling")
    parser.add_argument("--training_seeds", default="0,1,2")
    parser.add_argument("--name", default="figures", help="of the folder of the figures, one for each process")
    options = parser.parse_args()
    figures = DigitFigures(options.folder / options.name, options.num_images, numbers(options.seeds))
    updates = round(UPDATES * options.scale)
    plain = {"updates_per_stage": updates, "loss_type": "l2", "clip_loss": False}
    base = dataclasses.replace(chain_config(options.folder, options.scale), **plain)
    known, seeds = options_of(updates), numbers(options.training_seeds)
    names = options.options.split(",") if options.options else list(known)
    for name in dict.fromkeys([options.against, *names]):
        for seed in seeds:
            folder = chain_folder(options.folder, name, seed)
            make_chain(folder, base, options.teacher, seed, known[name])
            for steps in STEPS:
                # Four-fold stages leave out some.
                if (folder / f"steps-{steps}").is_dir():
                    figures.add(f"{name}, {seed}, {steps}", folder / f"steps-{steps}", [steps])
    show(options.folder, names, options.against, seeds, figures)


def numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


if __name__ == "__main__":
    main()
