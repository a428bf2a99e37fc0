"""Each part of the loss on and off: the squared loss of the paper, pseudo-Huber, clipping, and both.

python benchmarks/quality/loss_parts.py TEACHER OUTPUT --updates 130 -- --train_data_dir images.parquet ...

Options after `--` are those of `progdistill distill`, shared by all chains: the images, and all that is not the
default. Each combination is a chain from 64 steps to 1 for each training seed, all of the same cost. The students of
8, 4, 2 and 1 steps make images from the same noise; their distances are divided by those of the plain squared loss
with the same training and sampling seed. The table has their median and range, and the share of values
that are exactly 0 or 255. What is done is kept in OUTPUT, and a run that was stopped goes on.
"""

import argparse
import dataclasses
import json
import statistics
import sys
from pathlib import Path

from diffusers_progdistill.commands.parsing import parse
from diffusers_progdistill.data import load_data
from diffusers_progdistill.evaluation.extractors import load_extractor
from diffusers_progdistill.evaluation.images import as_bytes
from diffusers_progdistill.evaluation.metrics import ImageMetrics
from diffusers_progdistill.evaluation.sampling import generate
from diffusers_progdistill.pipelines.pipeline_progressive_distillation import ProgressiveDistillationPipeline
from diffusers_progdistill.training.chain import distill
from diffusers_progdistill.training.config import DistillationConfig
from diffusers_progdistill.training.plan import saturated_share, share_of_data


STEPS, TEACHER_STEPS = (8, 4, 2, 1), 64
PLAIN = "squared (paper)"
LOSSES = {
    PLAIN: {"loss_type": "l2", "clip_loss": False},
    "squared, clipped": {"loss_type": "l2", "clip_loss": True},
    "pseudo-Huber": {"loss_type": "huber", "clip_loss": False},
    "pseudo-Huber, clipped": {"loss_type": "huber", "clip_loss": True},
}


class Results:
    """
    What is measured, in `results.json`: a row for each sampling seed, under the name of the model.

    Args:
        folder (`Path`): Where it is kept.
        metric ([`ImageMetrics`]): What measures.
        num_images (`int`), seeds (`list[int]`): Of each figure.
    """

    def __init__(self, folder: Path, metric: ImageMetrics, num_images: int, seeds: list[int]):
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.metric, self.num_images, self.seeds = folder / "results.json", metric, num_images, seeds
        self.rows = json.loads(self.path.read_text()) if self.path.exists() else {}

    def add(self, name: str, folder: Path, steps: int):
        """Measure the model in a folder with the seeds that are missing."""
        rows = self.rows.setdefault(name, [])
        missing = [seed for seed in self.seeds if seed not in {row["seed"] for row in rows}]
        if not missing:
            return
        pipeline = ProgressiveDistillationPipeline.from_pretrained(folder)
        pipeline.unet.eval().requires_grad_(False)
        for seed in missing:
            images = generate(pipeline, self.num_images, steps, seed)
            figures = {"distance": self.metric.distance(images), "ends": saturated_share(as_bytes(images))}
            rows.append({"seed": seed, **figures})
        self.path.write_text(json.dumps(self.rows, indent=1))

    def figures(self, name: str, figure: str) -> list[float]:
        """One figure of a model, by the sampling seeds in order."""
        by_seed = {row["seed"]: row[figure] for row in self.rows[name]}
        return [by_seed[seed] for seed in self.seeds]


def row_of(results: Results, name: str, training_seeds: list[int]) -> str:
    """One loss in the table."""
    cells, ends = [], []
    for steps in STEPS:

        def figures(loss, figure, steps=steps):
            return [v for t in training_seeds for v in results.figures(f"{loss}, {t}, {steps}", figure)]

        distances = figures(name, "distance")
        ratios = [a / b for a, b in zip(distances, figures(PLAIN, "distance"))]
        shown = f"{statistics.median(ratios):.3f} [{min(ratios):.3f}, {max(ratios):.3f}]"
        cells.append(f"1 ({statistics.median(distances):.2f})" if name == PLAIN else shown)
        ends.append(f"{100 * statistics.median(figures(name, 'ends')):.2f}")
    return f"| {name} | " + " | ".join(cells) + f" | {', '.join(ends)} % |"


def table(results: Results, training_seeds: list[int]) -> str:
    """All losses; that of the paper, which is 1, with its distance."""
    head = "| loss | " + " | ".join(f"{n} step{'s' * (n > 1)}" for n in STEPS)
    head += " | values at 0 or 255 (8, 4, 2, 1 steps) |"
    return "\n".join(
        [head, "|---|" + "--:|" * len(STEPS) + "---|", *(row_of(results, n, training_seeds) for n in LOSSES)]
    )


def folder_of(output: Path, name: str, seed: int) -> Path:
    return output / f"{name.translate(str.maketrans(' ', '-', '(),'))}-{seed}"


def main(argv: list[str]):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher")
    parser.add_argument("output", type=Path)
    parser.add_argument("--updates", type=int, default=130, help="of a stage; twice as many for 2 steps and for 1")
    parser.add_argument("--num_images", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="of training")
    parser.add_argument("--sampling_seeds", type=int, nargs="+", default=[101, 102, 103])
    parser.add_argument("--feature_extractor", default="efflite0")
    end = argv.index("--") if "--" in argv else len(argv)
    options = parser.parse_args(argv[:end])
    words = ["--pretrained_teacher_model", options.teacher, *argv[end + 1 :]]
    fixed = {"updates_per_stage": options.updates, "end_steps": 1, "report_to": "none", "eval_images": 0}
    base = dataclasses.replace(parse(DistillationConfig, words, "loss_parts.py", ""), **fixed)
    if base.start_steps is None:
        base = dataclasses.replace(base, start_steps=TEACHER_STEPS)

    data = load_data(base)
    metric = ImageMetrics(data, load_extractor(options.feature_extractor, data), options.num_images)
    results = Results(options.output, metric, options.num_images, options.sampling_seeds)
    results.add("teacher", Path(options.teacher), TEACHER_STEPS)
    for seed in options.seeds:
        for name, loss in LOSSES.items():
            folder = folder_of(options.output, name, seed)
            distill(dataclasses.replace(base, output_dir=str(folder), seed=seed, **loss))
            for steps in STEPS:
                results.add(f"{name}, {seed}, {steps}", folder / f"steps-{steps}", steps)
    print(table(results, options.seeds))
    distance, ends = (statistics.median(results.figures("teacher", figure)) for figure in ("distance", "ends"))
    print(
        f"\nReal-vs-real FD: {metric.real_vs_real['frechet_distance']:.2f}; the teacher with {TEACHER_STEPS} steps:"
        f" {distance:.2f}. Values at 0 or 255: real images {100 * share_of_data(data):.2f} %, teacher"
        f" {100 * ends:.2f} %."
    )


if __name__ == "__main__":
    main(sys.argv[1:])
