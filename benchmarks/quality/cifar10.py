"""Teacher, chain and figures on CIFAR-10's size, for one GPU: the paper's Table 2 at a smaller scale.

python benchmarks/quality/cifar10.py IMAGES OUTPUT

IMAGES is a parquet file with the columns image and label, or a folder of 32x32 images with a subfolder for each class;
OUTPUT gets the teacher, the students and a consistency-style student of the chain's cost, all measured as on Fashion-
MNIST. It needs a CUDA device with 16 GB and, with the defaults (60,000 updates of 128 images for the teacher, 5,000 a
stage), an estimated ten hours of an H100; `--scale 0.1` needs one. It has not run on one yet. Run under a time limit
it stops at a checkpoint (`timeout -s TERM 540 python ...`), and the same command goes on. Figures are comparable with
those of other copies of the images only if the copies are the same, bit by bit: JPEG copies are not the data set.
"""

import argparse
import dataclasses
import json
from pathlib import Path

import consistency_student
import torch

from diffusers_progdistill.commands.main import main as progdistill
from diffusers_progdistill.commands.parsing import run
from diffusers_progdistill.evaluation.summary import FILE_NAME
from diffusers_progdistill.record import RECORD_NAME
from diffusers_progdistill.training.chain import distill
from diffusers_progdistill.training.config import DistillationConfig, TeacherConfig
from diffusers_progdistill.training.teacher import train_teacher


def configs(images: Path, output: Path, scale: float, precision: str, unet: str | None):
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
        output_dir=str(output / "teacher"),
        model_config_name_or_path=unet,
        max_train_steps=max(1, round(60_000 * scale)),
        ema_decay=0.999,
        **shared,
    )
    chain = DistillationConfig(
        pretrained_teacher_model=str(output / "teacher"),
        output_dir=str(output / "students"),
        end_steps=1,
        updates_per_stage=max(1, round(5_000 * scale)),
        **shared,
    )
    return teacher, chain


def train(teacher: TeacherConfig, chain: DistillationConfig, rival: DistillationConfig):
    """Everything that is missing."""
    train_teacher(teacher)
    folder = distill(chain)
    stages = json.loads((folder / RECORD_NAME).read_text())["stages"]
    consistency_student.train(rival, sum(stage["forward_units"] for stage in stages))


def measure(chain: DistillationConfig, rival: DistillationConfig, num_images: int, features: str) -> int:
    """The headline figures of one seed, then their range over five."""
    asked = ["--class_column", "label", "--feature_extractor", features]
    samplers = ["--samplers", "progdistill,ddpm,dpmsolver++,unipc", "--steps", "1,2,4,8"]
    for count, seeds in ((num_images, "0"), (min(num_images, 2000), "0,1,2,3,4")):
        images = ["--num_images", str(count), "--seeds", seeds]
        for how in (samplers, ["--steps", "256"]):
            if status := progdistill(["evaluate", chain.output_dir, *asked, *images, *how]):
                return status
        options = {"num_images": count, "seeds": seeds, "steps": "1,2,4,8", "feature_extractor": features}
        evaluation = Path(chain.output_dir, FILE_NAME)
        consistency_student.measure(
            dataclasses.replace(rival, class_column="label"),
            Path(rival.output_dir),
            argparse.Namespace(evaluation=evaluation, **options),
        )
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--scale", type=float, default=1.0, help="fraction of the updates")
    parser.add_argument("--num_images", type=int, default=10_000)
    parser.add_argument(
        "--feature_extractor", default="classifier,efflite0", help="or inception, if it can be reached"
    )
    parser.add_argument("--unet", help="the config.json of another network")
    parser.add_argument("--any_device", action="store_true", help="run it without a GPU too, to try it")
    options = parser.parse_args()
    if not options.images.exists():
        parser.error(f"IMAGES {options.images} must be a parquet file or a folder of images")
    if not torch.cuda.is_available() and not options.any_device:
        parser.error("it needs a CUDA device: a teacher of this size takes weeks on a CPU (--any_device to try)")
    precision = "bf16" if torch.cuda.is_available() else "no"
    teacher, chain = configs(options.images, options.output, options.scale, precision, options.unet)
    rival = dataclasses.replace(chain, output_dir=str(options.output / "consistency"))
    return run(lambda: train(teacher, chain, rival)) or measure(
        chain, rival, options.num_images, options.feature_extractor
    )


if __name__ == "__main__":
    raise SystemExit(main())
