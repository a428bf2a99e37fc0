"""Where a chain starts: the fewest steps at which the teacher's curve is flat (`--start_steps auto`)."""

import dataclasses
import sys
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from tqdm.auto import tqdm

from ..evaluation.sampling import draw_noise, generate_shared
from ..families import Model
from ..processes.base import NoiseLevel
from ..processes.solvers import take_step
from ..processes.targets import TargetGrid, teacher_target
from ..record import read_begun
from .recipes import doubled, paper_start
from .run import Run


# By `--teacher_solver`, the steps that stand for infinitely many, and where a chain starts if nothing less will do:
# for DDIM the paper's 1,024; doubled steps halve its error, and quarter the midpoint rule's.
REFERENCE_STEPS = {"ddim": 512, "midpoint": 256}
MOST_STEPS = {"ddim": 1024, "midpoint": 256}
NUM_IMAGES, CHUNK = 256, 64
# Share of the images' variance that may change in half of them: the few that turn into other images, as good as
# before, do not count. docs/performance.md says what that costs.
TOLERANCE = 5e-4
# A dry run does without what would take longer.
DRY_RUN_SECONDS = 60.0


def resolve_start(run: Run) -> Run:
    """The run with a number of steps in place of `--start_steps auto`."""
    if isinstance(run.config.start_steps, int):
        return run
    config = dataclasses.replace(run.config, start_steps=steps_to_start(run))
    config.check_steps()
    return dataclasses.replace(run, config=config.freeze())


def steps_to_start(run: Run) -> int:
    """What the teacher or the run began with, what the recipe says, or else what is measured; it is said in a line."""
    config, teacher, solver, say = run.config, run.teacher, run.config.teacher_solver, run.accelerator.print
    begun = read_begun(Path(config.output_dir))
    if teacher.is_student:
        # Its steps are taken as they are.
        steps = teacher.model.num_trained_steps
        why = ", which the teacher was distilled for"
    elif begun and "start_steps" in begun["settings"]:
        steps, why = begun["settings"]["start_steps"], ", which the run began with"
    elif solver is None:
        steps, why = doubled(config.end_steps, MOST_STEPS["midpoint"]), ": no stage integrates the teacher"
    elif config.start_steps is None and config.recipe == "paper":
        return paper_start(config)
    elif teacher.reasons:
        # What it does on its own schedule says little of what is distilled.
        steps, why = doubled(config.end_steps, MOST_STEPS[solver]), ": the teacher is converted first"
    elif config.dry_run and (seconds := seconds_to_find(run, solver)) > DRY_RUN_SECONDS:
        steps = doubled(config.end_steps, MOST_STEPS[solver])
        say(f"--start_steps auto: at most {steps}; not looked for, which would take about {seconds:,.0f} s")
        return steps
    else:
        say(f"--start_steps auto: {NUM_IMAGES} images of the teacher, {solver}")
        found = [find_start(teacher.model, config.end_steps, solver, run.accelerator)]
        # Another device might decide otherwise.
        steps, changes = broadcast_object_list(found)[0]
        shown = ", ".join(f"{change:.1e} at {n}" for n, change in changes.items())
        still = f"share of its images' variance that still changes: {shown}; allowed {TOLERANCE:.1e}"
        why = f" ({still})" if shown else ""
    say(f"--start_steps auto is {steps}{why}")
    # Where the teacher is taken as it is, there is no solver.
    flags = f"--start_steps {steps}" + (f" --teacher_solver {solver}" if solver else "")
    say(f"the same without looking: {flags}")
    return steps


def seconds_to_find(run: Run, solver: str) -> float:
    """About what [`find_start`] would take, most of it for the reference."""
    teacher, device = run.teacher.model, run.accelerator.device

    @torch.no_grad()
    def time_call(count: int) -> float:
        z = torch.zeros(count, *teacher.pipeline.latents_shape(1)[1:], device=device)
        level = NoiseLevel(torch.ones(count, device=device), torch.zeros(count, device=device))
        labels = {"class_labels": torch.zeros(count, dtype=torch.long, device=device)}
        began = time.perf_counter()
        # The read waits for the device.
        teacher.denoiser.predict(z, level, labels if teacher.denoiser.has_classes else {}).sum().item()
        return time.perf_counter() - began

    # The first call sets things up; several images at once take less, if they do not take too long to try.
    image = min(time_call(1) for _ in range(2))
    chunk = CHUNK * image if CHUNK * image > DRY_RUN_SECONDS / 10 else min(time_call(CHUNK) for _ in range(2))
    seconds = chunk * NUM_IMAGES / CHUNK * REFERENCE_STEPS[solver] / run.accelerator.num_processes
    # One plan for all processes.
    return broadcast_object_list([seconds])[0]


def find_start(teacher: Model, end_steps: int, solver: str, accelerator: Accelerator) -> tuple[int, dict[int, float]]:
    """
    The fewest steps N = `end_steps` times 2, 4, 8, ... at which the teacher's images are, but for `TOLERANCE` of their
    variance, those of `REFERENCE_STEPS` steps from the same noise, in the median; and the share of the variance that
    still changes, by the steps that were tried.
    """
    # Fewer than eight never do.
    changes, steps = {}, doubled(end_steps, 8)
    if steps < REFERENCE_STEPS[solver]:
        reference = sample_teacher(teacher, REFERENCE_STEPS[solver], solver, accelerator)
        variance = (reference - reference.mean(0)).square().mean()
    while steps < REFERENCE_STEPS[solver]:
        errors = (sample_teacher(teacher, steps, solver, accelerator) - reference).square().flatten(1).mean(1)
        changes[steps] = (errors.median() / variance).item()
        if changes[steps] <= TOLERANCE:
            return steps, changes
        steps *= 2
    return doubled(end_steps, MOST_STEPS[solver]), changes


def sample_teacher(teacher: Model, num_steps: int, solver: str, accelerator: Accelerator) -> torch.Tensor:
    """What a perfect student of half as many steps would make: it lands where the first stage's targets say."""
    grid = TargetGrid.create(teacher.denoiser.process, num_steps // 2, midpoint=solver == "midpoint")
    grid = grid.to(accelerator.device)
    label, chunks = f"--start_steps auto, {num_steps} evaluations", NUM_IMAGES // (CHUNK * accelerator.num_processes)
    hidden = not accelerator.is_main_process
    with tqdm(total=chunks * num_steps, desc=label, leave=False, disable=hidden, file=sys.stderr) as bar:
        return generate_shared(
            accelerator, lambda first: sample_chunk(teacher, grid, first, bar).cpu(), range(NUM_IMAGES), CHUNK
        )


@torch.no_grad()
def sample_chunk(teacher: Model, grid: TargetGrid, first: int, bar: tqdm) -> torch.Tensor:
    """`CHUNK` of these images, beginning with number `first`, by the steps of a grid."""
    device, process, landings = grid.angles.device, teacher.denoiser.process, len(grid.angles)
    z = draw_noise(0, first, CHUNK, teacher.pipeline.latents_shape(1)[1:])[0].to(device)
    numbers = torch.arange(first, first + CHUNK, device=device)
    conditioning = {}
    if teacher.denoiser.has_classes:
        known = torch.tensor(teacher.pipeline.known_labels, device=device)
        conditioning = {"class_labels": known[numbers % len(known)]}
    for i in range(landings, 0, -1):
        rows = grid.at(torch.full_like(numbers, i - 1))
        target = teacher_target(lambda z, level: teacher.denoiser.predict_x0(z, level, conditioning), z, rows)
        if i > 1:
            ends = (torch.tensor(process.level(k / landings)[0], device=device) for k in (i, i - 1))
            z = take_step(z, target, *ends)
        bar.update(2)
    return target.clamp(-1, 1) if teacher.codec.is_bounded else target
