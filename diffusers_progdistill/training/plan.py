"""The plan of a chain: its stages, and what `--dry_run` says about them."""

import copy
import time

from .config import DistillationConfig
from .loop import train_stage
from .monitor import Monitor
from .stages import HalvingObjective, Stage


def plan_of(config: DistillationConfig) -> list[Stage]:
    """The stages of a chain in order."""
    return [Stage(f"steps-{n}", n, config.updates_of(n), units_per_update=5) for n in config.student_steps()]


def print_plan(config, pipeline, data, plan: list[Stage], accelerator, global_batch: int, measured: int = 5):
    """Print what would be done, with the time of a few real updates on this machine."""

    teacher = pipeline.unet.requires_grad_(False).eval().to(accelerator.device)
    student = copy.deepcopy(teacher).requires_grad_(True)
    kind, num_train = config.prediction_type, pipeline.scheduler.config.num_train_timesteps
    objective = HalvingObjective(teacher, kind, plan[0].number, kind, config.weighting, num_train, accelerator.device)
    silent = Monitor(accelerator, None, 1)
    seconds = []
    for updates in (1, measured):
        stage = Stage("plan", 0, updates, 5)
        silent.start(stage, 1, 1, global_batch)
        began = time.perf_counter()
        train_stage(accelerator, copy.deepcopy(student), objective, data, stage, config, silent)
        seconds.append(time.perf_counter() - began)
    per_update = max(seconds[1] - seconds[0], 0.0) / (measured - 1)
    parameters = sum(p.numel() for p in teacher.parameters())
    total = sum(s.updates for s in plan)
    print(f"teacher: {config.pretrained_teacher_model}, {kind}, {parameters:,} parameters, no adopt stage needed")
    print(f"data: {len(data):,} images, {data.channels}x{data.resolution}x{data.resolution}")
    print(f"global batch: {global_batch}, weighting: {config.weighting}")
    for stage in plan:
        print(
            f"  {2 * stage.number:>5} -> {stage.number:<5} steps {stage.updates:>9,} updates"
            f" {stage.forward_units:>11,} forward units  about {stage.updates * per_update:,.0f} s"
        )
    print(
        f"  total {sum(s.forward_units for s in plan):,} forward units, about {total * per_update:,.0f} s of training"
    )
    print("nothing was written (--dry_run)")
