"""`--recipe`: what the options are that nobody gives, as in the paper or as measured best."""

import dataclasses
from pathlib import Path

from ..errors import InputError
from ..record import RECORD_NAME, read_content
from .config import DistillationConfig
from .setup import LATER_OPTIONS


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


def settle(config: DistillationConfig) -> DistillationConfig:
    """
    A copy of the options with a value for each that was not given: what the run in the output folder began with, if
    there is one and no recipe is named, else what the recipe says. `start_steps` is left as it is: it may depend on
    the teacher.

    Args:
        config ([`DistillationConfig`]): The options as they were given; they are not changed.

    Returns:
        [`DistillationConfig`]: The copy.

    Raises:
        [`InputError`]: If the recipe is not known, or the folder's record cannot be read.
    """
    config = dataclasses.replace(config)
    config.check()
    begun = read_begun(config) if config.recipe is None else None
    if begun is None:
        name = config.recipe or "default"
        values = RECIPES[name]
    else:
        # A record does not name what runs did before there was the option.
        name, values = begun["about"].get("recipe"), {**LATER_OPTIONS, **begun["settings"]}
    not_given = [k for k in LEFT_TO_RECIPE if getattr(config, k) in (None, "auto")]
    return dataclasses.replace(config, recipe=name, **{k: values[k] for k in not_given})


def read_begun(config: DistillationConfig) -> dict | None:
    """The record of the run that the output folder holds, if any."""
    path = Path(config.output_dir) / RECORD_NAME
    if not path.exists():
        return None
    try:
        content = read_content(path)
    except ValueError as error:
        raise InputError(f"--output_dir {config.output_dir}: {error}; give a new folder") from error
    about = content.get("about")
    return {**content, "about": about if isinstance(about, dict) else {}}


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
    """The options of a settled config that are not as its recipe says."""
    values = RECIPES.get(config.recipe, {})
    changed = [k for k, value in values.items() if getattr(config, k) not in (None, value)]
    if config.recipe == "paper" and config.start_steps != paper_start(config):
        changed.insert(0, "start_steps")
    return changed


def describe_recipe(config: DistillationConfig, is_student: bool = False) -> str:
    """
    A line for the first lines of a run and for the plan.

    Args:
        config ([`DistillationConfig`]): The settled options.
        is_student (`bool`, defaults to `False`): Whether the teacher is a student, whose steps are taken as they are.
    """
    names = [k for k in ("start_steps", *LEFT_TO_RECIPE) if not (is_student and k == "teacher_solver")]
    values = ", ".join(f"{k} {getattr(config, k)}" for k in names)
    changes = ", ".join(list_changes(config))
    return f"recipe: {config.recipe or 'as the run began'} ({values})" + (
        f"; given otherwise: {changes}" if changes else ""
    )


def about_recipe(config: DistillationConfig) -> dict:
    """What the record says of a settled config's recipe: its name, and the options that were given otherwise."""
    if config.recipe is None:
        return {}
    changes = list_changes(config)
    return {"recipe": config.recipe, **({"recipe_changes": changes} if changes else {})}
