import argparse
import time
from pathlib import Path

from ..errors import InputError
from ..paths import settle_path
from ..training.config import DistillationConfig, TeacherConfig


DESCRIPTION = """Train a small teacher of scikit-learn's 1,797 handwritten digits and distil it from 32 steps to 1, on
a CPU in minutes. OUTPUT_DIR gets the teacher, a student for each of 16, 8, 4, 2 and 1 steps, samples.png and
curve.png. A second call says that it is finished, or continues what was interrupted."""

SHARED = {"dataset_name": "digits", "report_to": "none"}


def teacher_config(folder: Path, scale: float = 1.0) -> TeacherConfig:
    """The demo's teacher."""
    return TeacherConfig(
        output_dir=str(folder / "teacher"),
        max_train_steps=max(1, round(4500 * scale)),
        learning_rate=2e-3,
        lr_scheduler="linear",
        lr_warmup_steps=round(100 * scale),
        train_batch_size=64,
        ema_decay=0.998,
        **SHARED,
    )


def chain_config(folder: Path, scale: float = 1.0) -> DistillationConfig:
    """The demo's chain."""
    return DistillationConfig(
        pretrained_teacher_model=str(folder / "teacher"),
        output_dir=str(folder),
        # Where `--start_steps auto` finds this teacher's curve flat.
        start_steps=32,
        teacher_solver="midpoint",
        # Half of the values of the digits are black or white.
        loss_type="huber",
        clip_loss=True,
        end_steps=1,
        updates_per_stage=max(1, round(400 * scale)),
        train_batch_size=128,
        learning_rate=3e-3,
        lr_warmup_steps=round(20 * scale),
        adam_beta2=0.99,
        use_ema=True,
        eval_images=max(20, round(2000 * scale)),
        **SHARED,
    )


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser("progdistill demo", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument(
        "--output_dir", default="demo-digits", help="Where everything is written (default: %(default)s)."
    )
    parser.add_argument(
        "--scale", type=float, default=1.0, help="Fraction of the updates and images; less is faster and worse."
    )
    options = parser.parse_args(argv)
    if not 0 < options.scale <= 100:
        raise InputError(f"--scale must be a positive number up to 100, not {options.scale}")
    folder = Path(settle_path(options.output_dir, "--output_dir"))
    teacher, chain = teacher_config(folder, options.scale), chain_config(folder, options.scale)
    teacher.check(), chain.check()
    from ..training.chain import distill
    from ..training.teacher import train_teacher

    began = time.perf_counter()
    train_teacher(teacher)
    distill(chain)
    print(f"demo: {time.perf_counter() - began:.0f} s; look at {folder}/samples.png and {folder}/curve.png")
    return 0
