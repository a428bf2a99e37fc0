"""What people pass to a pipeline's call: checked, with the way out in the message, before anything is computed."""

import inspect
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from diffusers import SchedulerMixin


Generators = torch.Generator | list[torch.Generator] | None
Labels = int | str | list[int] | list[str] | np.ndarray | torch.Tensor


def check_count(name: str, value: Any) -> None:
    """Raise `ValueError` unless a value is a whole number of at least 1."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"`{name}` must be a positive integer, not {value!r}")


def as_labels(class_labels: Labels) -> torch.Tensor:
    """Class labels as a flat tensor of integers; `ValueError` for anything but whole numbers."""
    try:
        labels = class_labels if torch.is_tensor(class_labels) else torch.as_tensor(np.asarray(class_labels))
        is_whole = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        is_whole = False
    if not is_whole or not labels.numel():
        raise ValueError(
            "`class_labels` must be labels or names of classes, such as 3, [3, 7] or ['cat', 'dog'], not"
            f" {str(class_labels)[:80]}"
        )
    return labels.detach().flatten().long()


def check_generator(generator: Generators, batch_size: int) -> None:
    """Raise `ValueError` unless it is a generator, one an image, or none."""
    generators = generator if isinstance(generator, (list, tuple)) else [generator] * batch_size
    is_known = generator is None or all(isinstance(one, torch.Generator) for one in generators)
    if not is_known or len(generators) != batch_size:
        raise ValueError(
            "`generator` must be a torch.Generator, such as torch.Generator().manual_seed(0), or a list of"
            f" {batch_size} generators for `batch_size={batch_size}`, not {generator!r}"
        )


def check_latents(latents: torch.Tensor | None, shape: tuple[int, ...]) -> None:
    """Raise `ValueError` unless it is noise of this shape, or none."""
    if latents is None:
        return
    if not torch.is_tensor(latents) or tuple(latents.shape) != shape or not latents.is_floating_point():
        given = f"of shape {tuple(latents.shape)}, {latents.dtype}" if torch.is_tensor(latents) else type(latents)
        raise ValueError(f"`latents` must be a floating point tensor of shape {shape}, not {given}")


def check_scale(guidance_scale: float, folded: float | None, has_null_label: bool) -> None:
    """Raise `ValueError` for guidance that a model cannot give."""
    if not isinstance(guidance_scale, Real) or isinstance(guidance_scale, bool) or guidance_scale != guidance_scale:
        raise ValueError(f"`guidance_scale` must be a number, not {guidance_scale!r}")
    if guidance_scale != 1 and folded is not None:
        raise ValueError(f"guidance of scale {folded:g} is folded into this model: `guidance_scale` must be 1")
    if guidance_scale != 1 and not has_null_label:
        raise ValueError("this model was trained without a null class: `guidance_scale` must be 1")


def check_outputs(output_type: str, tensor_inputs: list[str], known: list[str]) -> None:
    """Raise `ValueError` for a type of images that there is not, or for what callbacks cannot be given."""
    if output_type not in ("pil", "np", "pt", "latent"):
        raise ValueError(f"`output_type` must be one of pil, np, pt, latent, not {output_type!r}")
    if isinstance(tensor_inputs, str) or not set(tensor_inputs or ()) <= set(known):
        raise ValueError(f"`callback_on_step_end_tensor_inputs` must be a list of {known}, not {tensor_inputs}")


def select_step_options(scheduler: SchedulerMixin, **options: Any) -> dict:
    """What a scheduler's `step` takes of these options; one that it does not take must be `None` or 0."""
    if scheduler.config.get("prediction_type") == "sample_epsilon" and scheduler.__module__.startswith("diffusers."):
        raise ValueError(
            f"{type(scheduler).__name__} does not know prediction type 'sample_epsilon': set `pipe.scheduler` to"
            " ProgressiveDistillationScheduler.from_config(pipe.scheduler.config)"
        )
    taken = inspect.signature(scheduler.step).parameters
    for name, value in options.items():
        if name not in taken and value and name != "generator":
            raise ValueError(
                f"`{name}` was passed, but {type(scheduler).__name__} has none: leave it out, or set `pipe.scheduler`"
                " to a DDIMScheduler or a ProgressiveDistillationScheduler"
            )
    return {name: value for name, value in options.items() if name in taken}


def replace_latents(returned: dict | None, latents: torch.Tensor) -> torch.Tensor:
    """What a callback's answer leaves as the sample; nothing is replaced by `None` or a dictionary without it."""
    if returned is not None and not isinstance(returned, dict):
        kind = type(returned).__name__
        raise ValueError(
            f"`callback_on_step_end` must return a dictionary such as {{'latents': latents}}, not a {kind}"
        )
    replaced = (returned or {}).get("latents", latents)
    if not torch.is_tensor(replaced) or replaced.shape != latents.shape:
        shape = tuple(latents.shape)
        raise ValueError(f"`callback_on_step_end` must return `latents` of shape {shape}, or leave them out")
    return replaced
