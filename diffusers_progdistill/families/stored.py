"""Whether stock diffusers steps a stored student as it was trained to be stepped."""

from pathlib import Path

from diffusers import DiffusionPipeline

from ..denoisers.recorder import ProbedStep, find_largest_error, probe_steps
from ..errors import InputError
from ..processes.base import NoiseProcess
from ..processes.solvers import DDIMStep
from .base import Model


# Largest difference of a step's coefficients; float32 tables of stock schedulers are off by less than a tenth of it.
TOLERANCE = 1e-4


def check_steps(process: NoiseProcess, num_steps: int) -> None:
    """
    Refuse a number of steps that no stock scheduler samples exactly.

    Raises:
        [`InputError`]: With the reason.
    """
    try:
        process.stock_scheduler(num_steps)
    except ValueError as error:
        raise InputError(
            f"a student of {num_steps} steps cannot be stored: {error}; choose others by --start_steps, --stage_factor"
            " and --end_steps, such as 32, 4 and 2"
        ) from error


def list_trained_steps(process: NoiseProcess, prediction_type: str, num_steps: int) -> list[ProbedStep]:
    """The steps that a student of N steps was trained for."""
    levels = [process.level(i / num_steps) for i in range(num_steps, 0, -1)]
    ends = [angle for angle, _ in levels[1:]] + [0.0]
    steps = [DDIMStep.create(angle, end, prediction_type) for (angle, _), end in zip(levels, ends)]
    return [ProbedStep(time, *step.prev) for (_, time), step in zip(levels, steps)]


def check_export(folder: Path, role: str, student: Model, **call) -> None:
    """
    Reopen a stored student by stock diffusers and compare every step with the one that was trained.

    Args:
        folder (`Path`): The stored pipeline.
        role (`str`): The component that the student's network is.
        student ([`Model`]): The student.
        call: What the stock pipeline is called with, beside the number of steps and a generator.

    Raises:
        `RuntimeError`: If a step differs.
    """
    steps = student.num_trained_steps
    parts = {role: student.network, **{k: v for k, v in student.pipeline.components.items() if k == "vae"}}
    pipeline = DiffusionPipeline.from_pretrained(folder, **parts)
    pipeline.set_progress_bar_config(disable=True)
    trained = list_trained_steps(student.denoiser.process, student.denoiser.prediction_type, steps)
    error = find_largest_error(probe_steps(pipeline, role, steps, **call), trained)
    if not error <= TOLERANCE:
        raise RuntimeError(f"{folder} steps {error:.1e} away from what was trained: it is not stored")
