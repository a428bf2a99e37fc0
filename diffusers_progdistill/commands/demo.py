import time
from dataclasses import dataclass
from pathlib import Path

from ..options import Options, Valid, option
from ..training.config import DistillationConfig, TeacherConfig
from .parsing import parse


DESCRIPTION = """Train a small teacher of scikit-learn's 1,797 handwritten digits and distil it from 32 steps to 1, on
a CPU in minutes. OUTPUT_DIR gets the teacher, a student for each of 16, 8, 4, 2 and 1 steps, samples.png and
curve.png. A second call says that it is finished, or continues what was interrupted."""

SHARED = {"dataset_name": "digits", "report_to": "none"}


@dataclass
class DemoConfig(Options):
    """Options of `progdistill demo`."""

    output_dir: str = option("demo-digits", "Where everything is written.")
    scale: float = option(
        1.0,
        "Fraction of the updates and images; less is faster and worse.",
        Valid(lambda value: 0 < value <= 100, "a positive number up to 100"),
    )


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
    config = parse(DemoConfig, argv, "progdistill demo", DESCRIPTION)
    config.check()
    folder = Path(config.output_dir)
    teacher, chain = teacher_config(folder, config.scale), chain_config(folder, config.scale)
    teacher.check(), chain.check()
    from ..training.chain import distill
    from ..training.teacher import train_teacher

    began = time.perf_counter()
    train_teacher(teacher)
    distill(chain)
    print(f"demo: {time.perf_counter() - began:.0f} s; look at {folder}/samples.png and {folder}/curve.png")
    return 0
