"""How many steps of a teacher are enough, by DDIM and by the midpoint rule, on the digits.

python benchmarks/quality/teacher_steps.py demo-digits/teacher

For each number of network evaluations: the share of the images' variance that still changes, in the median, as
`--start_steps auto` measures it, and the Frechet distance to real images.
"""

import argparse

from accelerate import Accelerator

from diffusers_progdistill.data import load_digits
from diffusers_progdistill.evaluation.metrics import ImageMetrics
from diffusers_progdistill.families import open_model
from diffusers_progdistill.pipelines.source import ModelSource
from diffusers_progdistill.training import initial_steps


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher")
    parser.add_argument("--steps", default="16,32,64,128")
    parser.add_argument("--num_images", type=int, default=2000)
    options = parser.parse_args()
    teacher = open_model(ModelSource(options.teacher)).freeze("cpu")
    initial_steps.NUM_IMAGES, accelerator = options.num_images, Accelerator(cpu=True)
    metrics = ImageMetrics(load_digits(), num_images=options.num_images)
    most = initial_steps.REFERENCE_STEPS["midpoint"]
    reference = initial_steps.sample_teacher(teacher, most, "midpoint", accelerator)
    variance = (reference - reference.mean(0)).square().mean()
    print(f"{'evaluations':>11}{'solver':>10}{'share':>10}{'distance':>10}")
    for steps in (int(word) for word in options.steps.split(",")):
        for solver in ("ddim", "midpoint"):
            images = initial_steps.sample_teacher(teacher, steps, solver, accelerator)
            share = ((images - reference).square().flatten(1).mean(1).median() / variance).item()
            distance = metrics.distance((images / 2 + 0.5).cpu())
            print(f"{steps:>11}{solver:>10}{share:>10.1e}{distance:>10.3f}", flush=True)


if __name__ == "__main__":
    main()
