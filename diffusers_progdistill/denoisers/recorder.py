"""What a stock pipeline does with its network, found by calling it: no family has to be known for that.

The network's `forward` is replaced for one call of the pipeline. [`record_call`] keeps what it is called with, which
is the exact conditioning of a batch. [`probe_steps`] answers with a constant and looks at the steps of the scheduler.
A step is affine, z' = A z + B output, and A and B are what a student was trained for or they are not.
"""

import contextlib
import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Never

import torch
from diffusers import DiffusionPipeline
from diffusers.models.modeling_outputs import Transformer2DModelOutput


class ProbedStep(NamedTuple):
    """One step of a pipeline: the time that the network was told, and A and B of z' = A z + B output."""

    time: float
    sample_factor: float
    output_factor: float


# What samples and outputs are made of: so large that clipping to images' range shows, and a power of two.
PROBE = 4.0


class _Finished(Exception):
    """Leaves a pipeline's call from within."""


def record_call(pipeline: DiffusionPipeline, role: str, **call: Any) -> dict:
    """
    The arguments of the first call of a pipeline's network. The network does not run.

    Args:
        pipeline ([`DiffusionPipeline`]): A stock pipeline.
        role (`str`): The name of the network's component, such as `"unet"` or `"transformer"`.
        call: What the pipeline is called with.

    Returns:
        `dict`: The arguments by the names of the network's `forward`.
    """
    recorded = {}
    signature = inspect.signature(getattr(pipeline, role).forward)

    def forward(*args: Any, **kwargs: Any) -> Never:
        recorded.update(signature.bind(*args, **kwargs).arguments)
        raise _Finished

    with _replaced(getattr(pipeline, role), "forward", forward), contextlib.suppress(_Finished):
        pipeline(**call)
    return recorded


def probe_steps(pipeline: DiffusionPipeline, role: str, num_steps: int, **call: Any) -> list[ProbedStep]:
    """
    The steps of a pipeline's call with `num_inference_steps=num_steps`. Neither the network nor a decoder runs.

    Args:
        pipeline, role, call: As in [`record_call`].
        num_steps (`int`): N; the call must step the scheduler so often.
    """
    # A of steps from a constant where the network answers 0, B of steps from 0 where it answers that constant.
    of_sample = _run_with_constant(pipeline, role, num_steps, 0.0, call)
    of_output = _run_with_constant(pipeline, role, num_steps, PROBE, call)
    return [ProbedStep(time, a / PROBE, b / PROBE) for (time, a), (_, b) in zip(of_sample, of_output, strict=True)]


def find_largest_error(steps: list[ProbedStep], expected: list[ProbedStep]) -> float:
    """The largest difference between two lists of steps; where a number is larger than 1, relative to it."""
    if len(steps) != len(expected):
        return math.inf
    pairs = [(x, y) for step, other in zip(steps, expected) for x, y in zip(step, other)]
    errors = [abs(x - y) / max(1.0, abs(y)) for x, y in pairs]
    return max(errors) if all(map(math.isfinite, errors)) else math.inf


def _run_with_constant(pipeline: DiffusionPipeline, role: str, num_steps: int, value: float, call: dict) -> list:
    """
    The time of each step and where it leads, an element of it, if the network always answers `value` and every step
    starts from `PROBE - value`.
    """
    network, scheduler, steps, times = getattr(pipeline, role), pipeline.scheduler, [], []
    signature, step = inspect.signature(network.forward), scheduler.step

    def forward(*args: Any, **kwargs: Any) -> Any:
        arguments = signature.bind(*args, **kwargs).arguments
        times.append(float(torch.as_tensor(arguments["timestep"]).flatten()[0]))
        sample = next(iter(arguments.values()))
        channels = getattr(network.config, "out_channels", None) or sample.shape[1]
        output = torch.full((len(sample), channels, *sample.shape[2:]), value, dtype=sample.dtype)
        output = output.to(sample.device)
        return Transformer2DModelOutput(sample=output) if kwargs.get("return_dict", True) else (output,)

    def record_step(output: Any, timestep: Any, sample: Any, *args: Any, **kwargs: Any) -> Any:
        result = step(output, timestep, torch.full_like(sample, PROBE - value), *args, **kwargs)
        steps.append((times[-1], result[0].flatten()[0].item()))
        if len(steps) == num_steps:
            raise _Finished
        return result

    record_step.__signature__ = inspect.signature(step)  # type: ignore[attr-defined]
    generator = torch.Generator().manual_seed(0)
    with _replaced(network, "forward", forward), _replaced(scheduler, "step", record_step):
        with contextlib.suppress(_Finished):
            pipeline(num_inference_steps=num_steps, generator=generator, **call)
    return steps


@contextlib.contextmanager
def _replaced(owner: object, name: str, function: Callable) -> Iterator[None]:
    """An attribute of one object, replaced for a while."""
    setattr(owner, name, function)
    try:
        yield
    finally:
        delattr(owner, name)
