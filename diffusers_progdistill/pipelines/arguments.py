"""What people pass to a pipeline's call: checked, with the way out in the message, before anything is computed."""

import inspect
from numbers import Integral, Real

import numpy as np
import torch


OUTPUT_TYPES = ("pil", "np", "pt", "latent")


def check_count(name: str, value):
    """Raise `ValueError` unless a value is a whole number of at least 1."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"`{name}` must be a positive integer, not {value!r}")


def as_labels(class_labels) -> torch.Tensor:
    """
    Class labels as a flat tensor of integers.

    Raises:
        `ValueError`: For anything but whole numbers.
    """
    kind = type(class_labels).__name__
    wanted = "`class_labels` must be labels or names of classes, such as 3, [3, 7] or ['cat', 'dog']"
    if isinstance(class_labels, (torch.Generator, dict, set, bytes)):
        raise ValueError(f"{wanted}, not a {kind}")
    try:
        if torch.is_tensor(class_labels):
            labels = class_labels.detach()
        else:
            labels = torch.as_tensor(np.asarray(class_labels))
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{wanted}, not {str(class_labels)[:80]}") from error
    if not labels.numel():
        raise ValueError(f"{wanted}, but there are none")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"{wanted}, not values of type {str(labels.dtype).removeprefix('torch.')}")
    return labels.flatten().long()


def check_generator(generator, batch_size: int):
    """Raise `ValueError` unless it is a generator, one an image, or none."""
    generators = generator if isinstance(generator, (list, tuple)) else [] if generator is None else [generator]
    if isinstance(generator, (list, tuple)) and len(generators) != batch_size:
        raise ValueError(f"{len(generators)} generators were passed for `batch_size={batch_size}`")
    for one in generators:
        if not isinstance(one, torch.Generator):
            raise ValueError(
                f"`generator` must be a torch.Generator or a list of them, such as torch.Generator().manual_seed(0),"
                f" not {one!r}"
            )


def check_latents(latents, shape: tuple[int, ...]):
    """Raise `ValueError` unless it is noise of this shape, or none."""
    if latents is None:
        return
    if not torch.is_tensor(latents):
        raise ValueError(f"`latents` must be a tensor of shape {shape}, not a {type(latents).__name__}")
    if tuple(latents.shape) != shape:
        raise ValueError(f"`latents` must have shape {shape}, not {tuple(latents.shape)}")
    if not latents.is_floating_point():
        raise ValueError(
            f"`latents` must be floating point noise, such as torch.randn{shape}, not of type"
            f" {str(latents.dtype).removeprefix('torch.')}"
        )


def check_scale(guidance_scale, folded: float | None, has_null_label: bool):
    """Raise `ValueError` for guidance that a model cannot give."""
    if not isinstance(guidance_scale, Real) or isinstance(guidance_scale, bool) or guidance_scale != guidance_scale:
        raise ValueError(f"`guidance_scale` must be a number, not {guidance_scale!r}")
    if guidance_scale == 1:
        return
    if folded is not None:
        raise ValueError(f"guidance of scale {folded:g} is folded into this model: `guidance_scale` must be 1")
    if not has_null_label:
        raise ValueError("this model was trained without a null class: `guidance_scale` must be 1")


def check_tensor_inputs(tensor_inputs, known: list[str]):
    """Raise `ValueError` unless it is a list of what callbacks can be given."""
    asked = [tensor_inputs] if isinstance(tensor_inputs, str) else list(tensor_inputs or [])
    if isinstance(tensor_inputs, str) or not all(name in known for name in asked):
        raise ValueError(f"`callback_on_step_end_tensor_inputs` must be a list of {known}, not {asked}")


def check_prediction(scheduler):
    """Raise `ValueError` for a stock scheduler that was set to a model of two heads, x and epsilon."""
    if scheduler.config.get("prediction_type") == "sample_epsilon" and scheduler.__module__.startswith("diffusers."):
        raise ValueError(
            f"{type(scheduler).__name__} does not know prediction type 'sample_epsilon': set `pipe.scheduler` to"
            " ProgressiveDistillationScheduler.from_config(pipe.scheduler.config)"
        )


def step_options(scheduler, **options) -> dict:
    """
    What a scheduler's `step` takes of these options; `None` and 0 are left out where it takes none.

    Raises:
        `ValueError`: For one that is given and that it does not take.
    """
    taken = inspect.signature(scheduler.step).parameters
    for name, value in options.items():
        if name not in taken and value and name != "generator":
            raise ValueError(
                f"`{name}` was passed, but {type(scheduler).__name__} has none: leave it out, or set `pipe.scheduler`"
                " to a DDIMScheduler or a ProgressiveDistillationScheduler"
            )
    return {name: value for name, value in options.items() if name in taken}


def replaced_latents(returned, latents: torch.Tensor) -> torch.Tensor:
    """
    What a callback's answer leaves as the sample; nothing is replaced by `None` or a dictionary without it.

    Raises:
        `ValueError`: If it returned something else.
    """
    if returned is None:
        return latents
    if not isinstance(returned, dict):
        raise ValueError(
            "`callback_on_step_end` must return a dictionary such as {'latents': latents}, or None, not a"
            f" {type(returned).__name__}"
        )
    latents_now = returned.get("latents", latents)
    if not torch.is_tensor(latents_now) or latents_now.shape != latents.shape:
        raise ValueError(
            f"`callback_on_step_end` must return `latents` as a tensor of shape {tuple(latents.shape)}, or leave them"
            " out"
        )
    return latents_now
