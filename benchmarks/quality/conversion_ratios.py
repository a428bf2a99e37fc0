"""FD ratios of a converted teacher and of its 4-step student against the teacher itself, from the same noise.

python benchmarks/quality/stock_teacher.py stock-digits
python benchmarks/quality/conversion_ratios.py stock-digits stock-chain

Distils `stock-digits` into `stock-chain` (if that is not done), then measures: medians and ranges over sampling seeds.
A row can be had alone by --rows; each distance is kept in OUTPUT/distances.json and not measured again.
"""

import argparse
import dataclasses
import json
import statistics
from pathlib import Path

from diffusers_progdistill.commands.demo import chain_config
from diffusers_progdistill.data import load_data
from diffusers_progdistill.evaluation.metrics import ImageMetrics
from diffusers_progdistill.evaluation.sampling import generate
from diffusers_progdistill.pipelines.loading import unclip
from diffusers_progdistill.pipelines.pipeline_progressive_distillation import ProgressiveDistillationPipeline
from diffusers_progdistill.training.chain import distill
from diffusers_progdistill.training.config import DistillationConfig


def chain_of(teacher: str, folder: str, **options) -> DistillationConfig:
    """128 -> 4 DDIM steps with the demo's other settings; what is given differs."""
    fixed = {"start_steps": 128, "teacher_solver": "ddim", "loss_type": "l2", "clip_loss": False, "end_steps": 4}
    fixed |= {"eval_images": 0, "pretrained_teacher_model": teacher}
    return dataclasses.replace(chain_config(Path(folder)), **{**fixed, **options})


class Distances:
    """Distances of 2,000 images by model, steps and seed, kept in a file."""

    def __init__(self, path: Path, seeds: list[int], num_images: int):
        self.path, self.seeds, self.num_images = path, seeds, num_images
        self.known = json.loads(path.read_text()) if path.exists() else {}
        self.metric = ImageMetrics(load_data(DistillationConfig(dataset_name="digits")))

    def of(self, name: str, pipeline, steps: int, guidance_scale: float = 1.0) -> list[float]:
        values = []
        for seed in self.seeds:
            key = f"{name}, {steps} steps, seed {seed}, {self.num_images} images"
            if key not in self.known:
                images = generate(pipeline, self.num_images, steps, seed, guidance_scale=guidance_scale)
                value = self.metric.distance(images)
                # Another row may be measured by another process.
                self.known = {**(json.loads(self.path.read_text()) if self.path.exists() else {}), key: value}
                self.path.write_text(json.dumps(self.known, indent=1))
                print(f"{key}: {value:.3f}", flush=True)
            values.append(self.known[key])
        return values


def load_teacher(folder: str) -> ProgressiveDistillationPipeline:
    """The teacher with its best sampler: DDIM on its own schedule, unclipped."""
    pipeline = ProgressiveDistillationPipeline.from_pretrained(folder)
    return ProgressiveDistillationPipeline(pipeline.unet, unclip(pipeline.scheduler))


def show(name: str, values: list[float], goal: str = ""):
    spread = f"[{min(values):.3f}, {max(values):.3f}]"
    print(f"{name:<48}{statistics.median(values):8.3f}  {spread}  {goal}", flush=True)


def ratio(a: list[float], b: list[float]) -> list[float]:
    return [x / y for x, y in zip(a, b)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("teacher")
    parser.add_argument("folder")
    parser.add_argument("--num_images", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rows", default="teacher,converted,student")
    options = parser.parse_args()

    seeds = list(range(1, options.seeds + 1))
    distances = Distances(Path(f"{options.folder}-distances.json"), seeds, options.num_images)
    rows, load = options.rows.split(","), ProgressiveDistillationPipeline.from_pretrained
    teacher = best = None
    if "teacher" in rows:
        teacher = load_teacher(options.teacher)
        best = distances.of("teacher", teacher, 1000)
        show("teacher, DDIM 1000 steps", best)
    if {"converted", "student"} & {*rows}:
        distill(chain_of(options.teacher, options.folder, updates_per_stage=400, conversion_updates=2000))
    if "converted" in rows:
        converted = distances.of("converted", load(f"{options.folder}/teacher"), 1024)
        show("converted, 1024 steps", converted)
        if best:
            show("converted 1024 / teacher 1000", ratio(converted, best), "goal <= 1.1")
    if "student" in rows:
        student = distances.of("student", load(f"{options.folder}/steps-4"), 4)
        four = distances.of("teacher", teacher or load_teacher(options.teacher), 4)
        show("student, 4 steps", student)
        show("student 4 / teacher 4", ratio(student, four), "goal <= 0.2")
        if best:
            show("student 4 / teacher 1000", ratio(student, best), "goal <= 1.5")


if __name__ == "__main__":
    main()
