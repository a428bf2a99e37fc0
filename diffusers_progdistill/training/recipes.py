"""The options of a run, once each that was left open has a value: by `--recipe`, accelerate and the teacher."""

import dataclasses
from pathlib import Path

from accelerate import Accelerator

from ..errors import InputError
from ..families import Model
from ..record import read_begun
from .config import TEACHER_FLAG, DistillationConfig, TrainingConfig


# What the paper did (its official configs for distilling). Batch, learning rate and flips go with the data set:
# examples/configs has them. Where an option's own default is another, the recipe puts this in its place.
PAPER = {
    "teacher_solver": "ddim",
    "stage_factor": 2,
    "reuse_targets": 1,
    "loss_type": "l2",
    "clip_loss": False,
    "weighting": "truncated_snr",
    "updates_per_stage": 50_000,
    "use_ema": False,
    "lr_scheduler": "linear",
    "lr_warmup_steps": 0,
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "adam_weight_decay": 0.0,
    "adam_epsilon": 1e-8,
    "max_grad_norm": 1.0,
}
# Beside it `--start_steps auto`. docs/performance.md and docs/loss.md have what was measured.
DEFAULT = {"teacher_solver": "midpoint", "loss_type": "l2", "clip_loss": False}
RECIPES = {"default": DEFAULT, "paper": PAPER}
# Options that are `None` unless they are given; `start_steps` is another, see `initial_steps.py`.
LEFT_TO_RECIPE = tuple(DEFAULT)

# Where the paper's chains start, and that on CIFAR-10.
PAPER_START, PAPER_STARTS = 1024, {"cifar10": 8192, "uoft-cs/cifar10": 8192}


def resolve(config: TrainingConfig, accelerator: Accelerator, teacher: Model | None = None) -> TrainingConfig:
    """
    A frozen copy of the checked options, with what accelerate, the teacher and the recipe say where they leave
    something open. What then changes nothing is `None`, so that it may differ when the run is resumed. `start_steps`
    may be left open: it may have to be measured, see `initial_steps.py`.
    """
    config = dataclasses.replace(
        config,
        mixed_precision=accelerator.mixed_precision,
        gradient_accumulation_steps=accelerator.gradient_accumulation_steps,
    )
    if teacher is not None:
        if teacher.denoiser.prediction_type == "epsilon" and teacher.denoiser.process.has_zero_terminal_snr:
            raise InputError(
                f"{TEACHER_FLAG} predicts epsilon on a schedule with zero terminal SNR, where epsilon says nothing"
                " about the image: give a teacher of another prediction type or schedule"
            )
        prediction_type = config.prediction_type or teacher.family.choose_prediction_type(teacher)
        weighting = config.weighting or ("snr" if prediction_type == "epsilon" else "truncated_snr")
        config = dataclasses.replace(config, prediction_type=prediction_type, weighting=weighting)
    if isinstance(config, DistillationConfig):
        config = settle_recipe(config)
        idle = {
            # A student's steps are taken as they are.
            "teacher_solver": teacher.num_trained_steps is not None,
            "huber_c": config.loss_type != "huber",
            "clip_margin": not config.clip_loss,
        }
        if config.objective != "distillation":
            idle |= dict.fromkeys(
                ("weighting", "teacher_solver", "loss_type", "clip_loss", "huber_c", "clip_margin"), True
            )
        config = dataclasses.replace(config, **{name: None for name, is_idle in idle.items() if is_idle})
    return config.freeze()


def settle_recipe(config: DistillationConfig) -> DistillationConfig:
    """
    A copy of the options with a value for each that the recipe is for: what the run in the output folder began with,
    if there is one and no recipe is named, else what the recipe says. `start_steps` may depend on the teacher.
    """
    begun = read_begun(Path(config.output_dir)) if config.recipe is None else None
    if begun is None:
        name = config.recipe or "default"
        values = RECIPES[name]
    else:
        # The folder may also hold a teacher, which the settings tell from a chain later.
        name, values = begun.get("about", {}).get("recipe", "default"), {**DEFAULT, **begun["settings"]}
    not_given = [k for k in LEFT_TO_RECIPE if getattr(config, k) is None]
    return dataclasses.replace(config, recipe=name, **{k: values[k] for k in not_given})


def paper_start(config: DistillationConfig) -> int:
    """Where the paper starts on a data set, or the next higher number that halves down to `end_steps`."""
    return doubled(config.end_steps, PAPER_STARTS.get(config.dataset_name, PAPER_START))


def doubled(end_steps: int, least: int) -> int:
    """`end_steps` doubled once or more, to `least` or more."""
    steps = 2 * end_steps
    while steps < least:
        steps *= 2
    return steps


def list_changes(config: DistillationConfig) -> list[str]:
    """The options of a settled config that are not as its recipe says; `None` does nothing beside the others."""
    values = RECIPES[config.recipe]
    if config.recipe == "paper":
        values = {"start_steps": paper_start(config), **values}
    return [name for name, value in values.items() if getattr(config, name) not in (None, value)]


def describe_recipe(config: DistillationConfig) -> str:
    """A line for the first lines of a run and for the plan."""
    values = {k: getattr(config, k) for k in ("start_steps", *LEFT_TO_RECIPE)}
    shown = ", ".join(f"{k} {value}" for k, value in values.items() if value is not None)
    changes = ", ".join(list_changes(config))
    return f"recipe: {config.recipe} ({shown})" + (f"; given otherwise: {changes}" if changes else "")
