"""The options of a run, once each that was left open has a value. Nothing sets them after that."""

import dataclasses

from accelerate import Accelerator

from ..errors import InputError
from ..families import Model
from .config import ConversionConfig, DistillationConfig, TrainingConfig
from .pretrained import FLAG
from .recipes import settle_recipe


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
        config = dataclasses.replace(config, **settle_prediction(config, teacher))
    if isinstance(config, DistillationConfig):
        config = settle_recipe(config)
        config = dataclasses.replace(config, **dict.fromkeys(list_idle_options(config, teacher)))
    return config.freeze()


def settle_prediction(config: ConversionConfig, teacher: Model) -> dict[str, str]:
    """What the students predict and how errors are weighted."""
    if teacher.denoiser.prediction_type == "epsilon" and teacher.denoiser.process.has_zero_terminal_snr:
        raise InputError(
            f"{FLAG} predicts epsilon on a schedule with zero terminal SNR, where epsilon says nothing about the"
            " image: give a teacher of another prediction type or schedule"
        )
    prediction_type = config.prediction_type or teacher.family.choose_prediction_type(teacher)
    weighting = config.weighting or ("snr" if prediction_type == "epsilon" else "truncated_snr")
    return {"prediction_type": prediction_type, "weighting": weighting}


def list_idle_options(config: DistillationConfig, teacher: Model) -> list[str]:
    """The options that change nothing beside the others and this teacher."""
    idle = {
        # A student's steps are taken as they are.
        "teacher_solver": teacher.num_trained_steps is not None,
        "huber_c": config.loss_type != "huber",
        "clip_margin": not config.clip_loss,
    }
    return [name for name, is_idle in idle.items() if is_idle]
