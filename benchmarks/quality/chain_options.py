"""What moves the quality of a chain, on the digits: updates a stage, the average of the weights, where it starts.

python benchmarks/quality/chain_options.py OUTPUT TEACHER

TEACHER is the demo's (`demo-digits/teacher`). Each option is a chain of the demo's settings to 1 step that differs in
it alone, for three training seeds; distances of the students of 8, 4, 2 and 1 steps. A run that was stopped goes on.
"""

import argparse
import dataclasses
from pathlib import Path

from measuring import DigitFigures

from diffusers_progdistill.commands.demo import chain_config
from diffusers_progdistill.training.chain import distill


def options_of(updates: int) -> dict[str, dict]:
    """What each chain changes."""
    return {
        "default": {},
        "updates / 2": {"updates_per_stage": updates // 2},
        "updates / 5": {"updates_per_stage": updates // 5},
        "updates / 10": {"updates_per_stage": updates // 10},
        "no average": {"use_ema": False},
        "start 1024": {"start_steps": 1024},
        "start 256": {"start_steps": 256},
        "start 64": {"start_steps": 64},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("teacher")
    parser.add_argument("--scale", type=float, default=1.0, help="fraction of the demo's updates")
    parser.add_argument("--num_images", type=int, default=2000)
    parser.add_argument("--seeds", default="1,2,3", help="of sampling")
    parser.add_argument("--training_seeds", default="0,1,2")
    options = parser.parse_args()
    figures = DigitFigures(options.folder, options.num_images, [int(s) for s in options.seeds.split(",")])
    base = chain_config(options.folder, options.scale)
    for name, changes in options_of(base.updates_per_stage).items():
        for seed in options.training_seeds.split(","):
            folder = options.folder / f"{name.replace(' / ', '-by-').replace(' ', '-')}-seed-{seed}"
            fixed = {"pretrained_teacher_model": options.teacher, "output_dir": str(folder), "eval_images": 0}
            distill(dataclasses.replace(base, **fixed, seed=int(seed), **changes))
            for steps in (8, 4, 2, 1):
                figures.add(f"{name}, {seed}, {steps}", folder / f"steps-{steps}", [steps])
    figures.show()


if __name__ == "__main__":
    main()
