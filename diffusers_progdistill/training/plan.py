"""The plan of a run: its stages, and what `--dry_run` says about them."""

import dataclasses
import time

import psutil
import torch

from ..data import ImageData
from ..objectives.registry import find_objective
from ..objectives.stage import Stage
from .config import ConversionConfig, DistillationConfig
from .loop import StageTrainer
from .monitor import Monitor
from .run import Run, Teacher
from .task import StageTask


# The folder of a converted teacher in a chain's output folder.
CONVERSION_STAGE = "teacher"

# Updates that would take longer than this are measured with fewer images, and the time is scaled up.
LONGEST_UPDATE, FEW_IMAGES = 10.0, 4

# Images whose values are counted, and how many at once.
SAMPLE, AT_ONCE = 1024, 64
# Above this share the images have plain grounds: of CIFAR-10's values 2 % are at the ends, of the digits' 58 %.
SATURATED = 0.1


def build_conversion_stage(config: ConversionConfig) -> Stage:
    """Conversion costs a forward pass of the teacher and an update of the student; guidance doubles the former."""
    passes = 1 if config.guidance_scale == 1 else 2
    return Stage(CONVERSION_STAGE, config.conversion_updates, passes_per_update=3 + passes)


def build_plan(config: DistillationConfig, teacher: Teacher) -> list[Stage]:
    """The stages of a chain in order."""
    steps, stages = config.student_steps(), []
    for before, n in zip([config.start_steps, *steps], steps):
        # The stochastic sampler's student has as many steps as its teacher, and strides over two of them.
        factor = 2 if config.stochastic_sampler else before // n
        # Guidance that no conversion stage folds in is asked for by the first stage, with two passes a step.
        is_guided = config.guidance_scale != 1 and not teacher.reasons and not stages
        asked = find_objective(config.objective).count_example_passes(factor, 2 if is_guided else 1)
        passes = 3 + asked / config.reuse_targets
        # A student is right on its own grid alone, and there DDIM is exact.
        midpoint = config.teacher_solver == "midpoint" and not stages and not teacher.is_student
        updates = config.count_updates(n)
        stages.append(Stage(f"steps-{n}", updates, passes, n, factor, config.reuse_targets, midpoint))
    return ([build_conversion_stage(config)] if teacher.reasons else []) + stages


def print_plan(run: Run, plan: list[Stage], kinds: dict[tuple, StageTask]) -> None:
    """Print what would be done, with the time of a few real updates of a task of each [`~Stage.kind`]."""
    config, data, teacher = run.config, run.data, run.teacher
    network = next(iter(kinds.values())).objective.student.network
    parameters = sum(p.numel() for p in network.parameters())
    print(
        f"model: {parameters:,} parameters, predicts {config.prediction_type}, weighting {config.weighting or 'none'}"
    )
    if teacher is not None:
        print(f"teacher: {config.pretrained_teacher_model}, predicts {teacher.model.denoiser.prediction_type}")
        why = "no conversion stage needed: its students are on its own schedule"
        print(f"it is converted first: {'; '.join(teacher.reasons)}" if teacher.reasons else why)
    print(f"data: {len(data):,} images, {data.channels}x{data.resolution}x{data.resolution}")
    print(f"global batch: {run.global_batch}")
    # Weights, gradients and Adam's two moments; beside them the teacher's weights, and the average's.
    copies = 4 + (teacher is not None) + (teacher is None or config.use_ema)
    states = parameters * 4 * copies
    print(f"memory: {states / 1e9:.2f} GB for weights, gradients, optimizer and teacher, and the activations")
    free = psutil.virtual_memory().available
    seconds = {}
    if run.accelerator.device.type == "cpu" and states > 0.8 * free:
        print(f"time: not measured, since only {free / 1e9:.1f} GB of memory are free")
    else:
        times = {kind: seconds_per_update(run, task) for kind, task in kinds.items()}
        seconds = {s.name: seconds_of(s, times[s.kind]) for s in plan}
    for stage in plan:
        about = f"  about {seconds[stage.name]:,.0f} s" if seconds else ""
        before = (stage.num_steps or 0) * (1 if stage.is_distillation and config.stochastic_sampler else stage.factor)
        label = f"{before:>5} -> {stage.num_steps:<5} steps" if stage.is_distillation else f"{stage.name:<20}"
        print(f"  {label} {stage.updates:>9,} updates {stage.forward_passes:>11,} forward passes{about}")
    about = f", about {sum(seconds.values()):,.0f} s of training" if seconds else ""
    print(f"  total {sum(s.forward_passes for s in plan):,} forward passes{about}")
    if run.accelerator.device.type == "cuda":
        print(f"  peak memory of the measured updates: {torch.cuda.max_memory_allocated() / 1e9:.2f} GB")
    print("nothing was written (--dry_run)")


def seconds_of(stage: Stage, fresh_update: float) -> float:
    """Seconds of a stage from those of an update with fresh targets: time goes with the forward passes."""
    fresh_passes = 3 + (stage.passes_per_update - 3) * stage.reuse
    return stage.updates * fresh_update * stage.passes_per_update / fresh_passes


def seconds_per_update(run: Run, task: StageTask) -> float:
    """Time of an update: measured with the whole batch if it is not too long, else with a few images and scaled up."""
    full = run.config.train_batch_size
    size, seconds = 1, _measure(run, task, 1, 1)
    if seconds * full < LONGEST_UPDATE:
        # Small enough in memory too; a GPU is slow with one image, and takes less than this foresees.
        size, seconds = full, _measure(run, task, full, 5)
    elif seconds * FEW_IMAGES < LONGEST_UPDATE:
        size, seconds = FEW_IMAGES, _measure(run, task, FEW_IMAGES, 1)
    if size < full:
        run.accelerator.print(f"time: measured with {size} of a batch's {full} images, and scaled")
    return seconds * full / size * run.accelerator.gradient_accumulation_steps


def _measure(run: Run, task: StageTask, batch_size: int, updates: int) -> float:
    """Seconds an update, without what only the first one of a batch's size needs, on a GPU the most."""
    accelerator, micro_batches = run.accelerator, run.accelerator.gradient_accumulation_steps
    config = dataclasses.replace(run.config, train_batch_size=batch_size)
    small = dataclasses.replace(run, config=config, global_batch=batch_size * accelerator.num_processes)
    silent = Monitor(accelerator, None, 1)
    seconds = []
    # An update of one micro-batch says what one of several takes.
    accelerator.gradient_accumulation_steps = 1
    for count in (1, 1, 1 + updates):
        stage = Stage("plan", count, 5)
        silent.start(stage, 1, 1, batch_size)
        began = time.perf_counter()
        result = StageTrainer(small, dataclasses.replace(task, stage=stage, ema_decay=None), silent).train()
        seconds.append(time.perf_counter() - began)
        task = dataclasses.replace(task, objective=task.objective.with_network(result.network))
    accelerator.gradient_accumulation_steps = micro_batches
    return max(seconds[2] - seconds[1], 1e-6) / updates


def saturated_share(images: torch.Tensor) -> float:
    """Share of the values of `uint8` images, of any shape, that are at the ends of the range."""
    return ((images == 0) | (images == 255)).float().mean().item()


def share_of_data(data: ImageData) -> float:
    """[`saturated_share`] of a sample of a data set, at most `SAMPLE` images, always the same ones."""
    chosen = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:SAMPLE].sort().values
    batches = [data.__getitems__(numbers.tolist())[0] for numbers in chosen.split(AT_ONCE)]
    return sum(saturated_share(images) * len(images) for images in batches) / len(chosen)


def describe_saturation(share: float, clip_loss: bool) -> str:
    """A line for the plan: whether `--clip_loss` may help."""
    percent = 100 * share
    line = f"{percent:.{0 if percent >= 10 else 1}f} % of the images' values are exactly 0 or 255"
    if share >= SATURATED and not clip_loss:
        return f"{line}: --clip_loss may help"
    if share < SATURATED and clip_loss:
        return f"{line}: --clip_loss is for images with more of them, and may do harm"
    return line
