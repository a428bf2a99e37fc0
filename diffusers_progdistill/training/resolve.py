"""The options of a run, once each that was left open has a value. Nothing sets them after that."""

import dataclasses
import logging

from accelerate import Accelerator

from ..errors import InputError
from .config import ConversionConfig, DistillationConfig, TrainingConfig
from .pretrained import FLAG
from .recipes import settle_recipe


logger = logging.getLogger(__name__)


def resolve(config: TrainingConfig, accelerator: Accelerator, scheduler=None) -> TrainingConfig:
    """
    A frozen copy of the options, with what accelerate, the teacher and the recipe say where they leave something open.
    What then changes nothing is `None`, so that it may differ when the run is resumed. `start_steps` may be left open:
    it may have to be measured, see `initial_steps.py`.

    Args:
        config ([`TrainingConfig`]): The checked options; they are not changed.
        accelerator ([`~accelerate.Accelerator`]): The precision and the accumulation that are used.
        scheduler ([`ProgressiveDistillationScheduler`], *optional*): The teacher's, if there is one.

    Raises:
        [`InputError`]: If the teacher can teach nothing, or the record of the run cannot be read.
    """
    config = dataclasses.replace(
        config,
        mixed_precision=accelerator.mixed_precision,
        gradient_accumulation_steps=accelerator.gradient_accumulation_steps,
    )
    if scheduler is not None:
        config = dataclasses.replace(config, **settle_prediction(config, scheduler))
    if isinstance(config, DistillationConfig):
        config = settle_recipe(config)
        config = dataclasses.replace(config, **dict.fromkeys(list_idle_options(config, scheduler)))
    return config.freeze()


def settle_prediction(config: ConversionConfig, scheduler) -> dict[str, str]:
    """What the students predict and how errors are weighted."""
    kind, schedule = scheduler.config.prediction_type, scheduler.schedule
    if kind == "epsilon" and schedule.has_zero_terminal_snr:
        raise InputError(
            f"{FLAG} predicts epsilon on a schedule with zero terminal SNR, where epsilon says nothing about the"
            " image: give a teacher of another prediction type or schedule"
        )
    own = kind if schedule.is_canonical and kind != "epsilon" else "v_prediction"
    prediction_type = config.prediction_type or own
    if prediction_type == "epsilon":
        logger.warning("epsilon says nothing about the image at pure noise: expect bad students of very few steps")
    weighting = config.weighting or ("snr" if prediction_type == "epsilon" else "truncated_snr")
    return {"prediction_type": prediction_type, "weighting": weighting}


def list_idle_options(config: DistillationConfig, scheduler) -> list[str]:
    """The options that change nothing beside the others and this teacher."""
    idle = {
        # A student's steps are taken as they are.
        "teacher_solver": scheduler.num_trained_steps is not None,
        "huber_c": config.loss_type != "huber",
        "clip_margin": not config.clip_loss,
    }
    return [name for name, is_idle in idle.items() if is_idle]
