"""Whether stock diffusers steps a stored student as it was trained to be stepped."""

from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline

from ..denoisers.base import Denoiser
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


def measure_steps(pipeline: DiffusionPipeline, role: str, denoiser: Denoiser, num_steps: int, **call: Any) -> float:
    """
    How far the steps of a stock pipeline are from those that a student is trained for.

    Args:
        pipeline ([`DiffusionPipeline`]): The stock pipeline.
        role (`str`): The component that the student's network is.
        denoiser ([`Denoiser`]): The student, or the teacher on the same process.
        num_steps (`int`): N.
        call: What the pipeline is called with, beside the number of steps and a generator.

    Returns:
        `float`: See [`find_largest_error`].
    """
    pipeline.set_progress_bar_config(disable=True)
    trained = list_trained_steps(denoiser.process, denoiser.prediction_type, num_steps)
    return find_largest_error(probe_steps(pipeline, role, num_steps, **call), trained)


def check_export(folder: Path, role: str, student: Model, **call: Any) -> None:
    """
    Reopen a stored student by stock diffusers and compare every step with the one that was trained.

    Args:
        folder (`Path`): The stored pipeline.
        role, call: As in [`measure_steps`].
        student ([`Model`]): The student.

    Raises:
        `RuntimeError`: If a step differs.
    """
    parts = {role: student.network, **{k: v for k, v in student.pipeline.components.items() if k == "vae"}}
    pipeline = DiffusionPipeline.from_pretrained(folder, **parts)
    error = measure_steps(pipeline, role, student.denoiser, student.num_trained_steps, **call)
    if not error <= TOLERANCE:
        raise RuntimeError(f"{folder} steps {error:.1e} away from what was trained: it is not stored")
