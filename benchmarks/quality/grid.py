"""A picture of several models, a row each, with the same noise down every column.

python benchmarks/quality/grid.py samples.png fashion-teacher=256 fashion-students/steps-8=8 fashion-students/steps-4=4
"""

import argparse
from pathlib import Path

import torch

from diffusers_progdistill.evaluation.pictures import save_rows
from diffusers_progdistill.evaluation.samplers import SamplingOptions
from diffusers_progdistill.evaluation.sampling import sample_chunk
from diffusers_progdistill.pipelines.pipeline_progressive_distillation import ProgressiveDistillationPipeline


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("models", nargs="+", help="FOLDER=STEPS")
    parser.add_argument("--columns", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rows, device = [], "cuda" if torch.cuda.is_available() else "cpu"
    for model in options.models:
        folder, steps = model.rsplit("=", 1)
        pipeline = ProgressiveDistillationPipeline.from_pretrained(folder).to(device)
        kind = "student" if pipeline.num_trained_steps else "teacher"
        images = sample_chunk(pipeline, SamplingOptions(int(steps), options.seed), 0, options.columns)
        rows.append((f"{kind}, {steps} step{'s' if steps != '1' else ''}", images))
    save_rows(rows, options.picture)


if __name__ == "__main__":
    main()
