"""FD ratios of a finished chain against its teacher: same noise on both sides, median and range over sampling seeds.

python benchmarks/quality/demo_ratios.py demo-digits
"""

import argparse
import statistics
from pathlib import Path

from diffusers_progdistill.data import load_data
from diffusers_progdistill.evaluation.metrics import ImageMetrics
from diffusers_progdistill.evaluation.sampling import generate
from diffusers_progdistill.pipelines.pipeline_progressive_distillation import ProgressiveDistillationPipeline
from diffusers_progdistill.training.config import DistillationConfig


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--num_images", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first_seed", type=int, default=1)
    options = parser.parse_args()

    metric = ImageMetrics(load_data(DistillationConfig(dataset_name="digits")))
    teacher = ProgressiveDistillationPipeline.from_pretrained(options.folder / "teacher")
    students = {
        int(path.name.removeprefix("steps-")): ProgressiveDistillationPipeline.from_pretrained(path)
        for path in options.folder.glob("steps-*")
    }

    def distances(pipeline, steps):
        return [
            metric.distance(generate(pipeline, options.num_images, steps, seed))
            for seed in range(options.first_seed, options.first_seed + options.seeds)
        ]

    def show(name, values, limit=""):
        print(
            f"{name:<36}{statistics.median(values):8.3f}  [{min(values):.3f}, {max(values):.3f}]  {limit}", flush=True
        )

    reference = distances(teacher, 256)
    show("teacher, DDIM 256 steps", reference, f"real-vs-real FD {metric.real_vs_real['frechet_distance']:.3f}")
    four = distances(teacher, 4)
    goals = {8: 1.1, 4: 1.15, 2: 1.25, 1: 1.35}
    for steps in sorted(students, reverse=True):
        own = distances(students[steps], steps)
        show(f"student {steps}", own)
        goal = f"goal <= {goals[steps]}" if steps in goals else ""
        show(f"student {steps} / teacher 256", [a / b for a, b in zip(own, reference)], goal)
        if steps == 4:
            show("student 4 / teacher 4", [a / b for a, b in zip(own, four)], "goal <= 0.12")


if __name__ == "__main__":
    main()
