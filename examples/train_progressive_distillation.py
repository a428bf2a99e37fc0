"""Distil a diffusers model into few-step students; the options of `progdistill distill`.

accelerate launch examples/train_progressive_distillation.py \\
    --pretrained_teacher_model my-teacher --dataset_name digits
"""

import sys

from diffusers_progdistill.commands.distill import main
from diffusers_progdistill.commands.main import run


if __name__ == "__main__":
    sys.exit(run(lambda: main(sys.argv[1:])))
