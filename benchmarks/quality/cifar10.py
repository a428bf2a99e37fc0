"""Teacher, chain and figures on CIFAR-10's size, for one GPU: the paper's Table 2 at a smaller scale.

python benchmarks/quality/cifar10.py IMAGES OUTPUT

IMAGES is a folder of 32x32 images with a subfolder for each class (any image folder of that layout), OUTPUT gets the
teacher and the students. It needs a CUDA device with 16 GB and, with the defaults (60,000 updates of 128 images for
the teacher, 5,000 a stage), an estimated ten hours of an H100; `--scale 0.1` needs one. It has not run on one yet. Run
under a time limit it stops at a checkpoint (`timeout -s TERM 540 python ...`), and the same command goes on. Figures
are comparable with those of other copies of the images only if the copies are the same, bit by bit: JPEG copies are
not the data set.
"""

import argparse
from pathlib import Path

import torch

from diffusers_progdistill.commands.main import main as progdistill
from diffusers_progdistill.commands.parsing import run
from diffusers_progdistill.training.chain import distill
from diffusers_progdistill.training.config import DistillationConfig, TeacherConfig
from diffusers_progdistill.training.teacher import train_teacher


def configs(images: Path, output: Path, scale: float, precision: str) -> tuple[TeacherConfig, DistillationConfig]:
    """A teacher of the default network for 32x32, 37 M parameters, and the default chain, to 1 step."""
    shared = {
        "train_data_dir": str(images),
        "train_batch_size": 128,
        "random_flip": True,
        "mixed_precision": precision,
        "report_to": "none",
        "dataloader_num_workers": 8,
    }
    teacher = TeacherConfig(
        output_dir=str(output / "teacher"), max_train_steps=max(1, round(60_000 * scale)), ema_decay=0.999, **shared
    )
    chain = DistillationConfig(
        pretrained_teacher_model=str(output / "teacher"),
        output_dir=str(output / "students"),
        end_steps=1,
        updates_per_stage=max(1, round(5_000 * scale)),
        **shared,
    )
    return teacher, chain


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--scale", type=float, default=1.0, help="fraction of the updates")
    parser.add_argument("--num_images", type=int, default=10_000)
    parser.add_argument("--feature_extractor", default="classifier", help="inception, where it can be reached")
    parser.add_argument("--any_device", action="store_true", help="run it without a GPU too, to try it")
    options = parser.parse_args()
    if not options.images.is_dir():
        parser.error(f"IMAGES {options.images} must be a folder of images, a subfolder a class")
    if not torch.cuda.is_available() and not options.any_device:
        parser.error("it needs a CUDA device: a teacher of this size takes weeks on a CPU (--any_device to try)")
    precision = "bf16" if torch.cuda.is_available() else "no"
    teacher, chain = configs(options.images, options.output, options.scale, precision)
    measure = ["evaluate", chain.output_dir, "--class_column", "label", "--samplers", "ddim,dpmsolver++,unipc"]
    measure += ["--steps", "1,2,4,8,256", "--num_images", str(options.num_images)]
    measure += ["--feature_extractor", options.feature_extractor]
    return run(lambda: (train_teacher(teacher), distill(chain)) and None) or progdistill(measure)


if __name__ == "__main__":
    raise SystemExit(main())
