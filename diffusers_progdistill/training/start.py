"""Where a chain starts: the fewest steps at which the teacher's curve is flat (`--start_steps auto`)."""

from pathlib import Path

from ..errors import InputError
from ..evaluation.sampling import generate_shared
from ..record import RECORD_NAME, read_content
from .run import Run


# The paper's own start, where nothing less will do.
MOST_STEPS = 1024
# What stands for infinitely many steps: DDIM's error halves with every doubling.
REFERENCE_STEPS = 512
NUM_IMAGES, CHUNK = 256, 64
# Share of the images' variance that may change; docs/performance.md says what that costs on the digits.
TOLERANCE = 5e-4


def resolve_start(run: Run):
    """Put a number of steps in place of `--start_steps auto`: what the run began with, or else what is measured."""
    config = run.config
    if config.start_steps != "auto":
        return
    teacher, path = run.teacher, Path(config.output_dir) / RECORD_NAME
    if teacher.pipeline.num_trained_steps is not None:
        config.start_steps = teacher.pipeline.num_trained_steps
    elif (begun := steps_of(path)) is not None:
        config.start_steps = begun
    elif teacher.reasons:
        # What it does on its own schedule says little of what is halved.
        config.start_steps = most_steps(config.end_steps)
        run.accelerator.print(f"--start_steps auto is {config.start_steps}: the teacher is adopted first")
    else:
        run.accelerator.print(f"--start_steps auto: {NUM_IMAGES} images of the teacher at {REFERENCE_STEPS} steps")
        config.start_steps, changes = find_start(
            run.accelerator, teacher.pipeline, config.end_steps, teacher.guidance_scale
        )
        shown = ", ".join(f"{change:.1e} at {n}" for n, change in changes.items())
        why = f" (this share of its images' variance still changes: {shown}; allowed {TOLERANCE:.1e})" if shown else ""
        run.accelerator.print(f"--start_steps auto is {config.start_steps}{why}")
    config.check()


def steps_of(path: Path) -> int | None:
    """The steps that a record says its run began with."""
    if not path.exists():
        return None
    try:
        return read_content(path)["settings"].get("start_steps")
    except ValueError as error:
        raise InputError(str(error)) from error


def find_start(accelerator, pipeline, end_steps: int, guidance_scale: float) -> tuple[int, dict[int, float]]:
    """
    The fewest steps N = `end_steps` times 2, 4, 8, ... at which the teacher's DDIM images are, but for `TOLERANCE` of
    their variance, those of `REFERENCE_STEPS` steps from the same noise.

    Returns:
        `tuple[int, dict[int, float]]`: N, and the share of the variance by the steps that were tried.
    """

    def images_of(num_steps):
        options = {"guidance_scale": guidance_scale, "chunk": CHUNK}
        return generate_shared(accelerator, pipeline, NUM_IMAGES, num_steps, **options)

    changes, steps = {}, 2 * end_steps
    if steps >= REFERENCE_STEPS:
        return most_steps(end_steps), changes
    reference = images_of(REFERENCE_STEPS)
    variance = (reference - reference.mean(0)).square().mean()
    while steps < REFERENCE_STEPS:
        # Fewer than eight never do.
        if steps >= 8:
            changes[steps] = ((images_of(steps) - reference).square().mean() / variance).item()
            if changes[steps] <= TOLERANCE:
                return steps, changes
        steps *= 2
    return most_steps(end_steps), changes


def most_steps(end_steps: int) -> int:
    """The paper's own start, or the next number that halves down to `end_steps`."""
    steps = 2 * end_steps
    while steps < MOST_STEPS:
        steps *= 2
    return steps
