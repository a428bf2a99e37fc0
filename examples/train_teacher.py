"""Train a teacher for progressive distillation; the options of `progdistill train-teacher`.

accelerate launch examples/train_teacher.py --dataset_name digits --output_dir my-teacher
"""

import sys

from diffusers_progdistill.commands.main import run
from diffusers_progdistill.commands.train_teacher import main


if __name__ == "__main__":
    sys.exit(run(lambda: main(sys.argv[1:])))
