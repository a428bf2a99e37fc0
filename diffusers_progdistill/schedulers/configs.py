"""The configs of other scheduler classes: what they leave out, and which of them have no betas."""

import inspect
from collections.abc import Sequence

import diffusers
import numpy as np

from ..processes.betas import canonical_betas


# What each value of our metadata in a scheduler's config is.
METADATA_KINDS = {
    **dict.fromkeys(("num_inference_steps", "num_classes", "null_label"), int),
    **{"class_names": list, "known_labels": list, "guidance_scale": (int, float)},
}

# Keys that no class of today has: of 2022, or of one class that moves the noise levels of its betas.
OLD_KEYS = ("tensor_format", "timestep_values", "predict_epsilon", "snr_shift_scale")


def translate_config(config: dict, ours: type) -> dict:
    """
    Any scheduler's config in the words of our class: what the class that wrote it leaves out is filled in with that
    class's defaults, and keys of older releases are put into those of today.
    """
    name = config.get("_class_name")
    source = getattr(diffusers, name, None) if isinstance(name, str) else None
    parameters = {} if source is None else inspect.signature(source.__init__).parameters
    check_variance_preserving(config, parameters)
    taken = inspect.signature(ours.__init__).parameters
    defaults = {k: p.default for k, p in parameters.items() if k in taken and p.default is not p.empty}
    prediction_type = read_prediction_type(config)
    if prediction_type is not None:
        config = {**config, "prediction_type": prediction_type}
    return {k: v for k, v in {**defaults, **config}.items() if k not in OLD_KEYS}


def check_variance_preserving(config: dict, parameters: dict) -> None:
    """Raise `ValueError` for a config, of a class with these parameters, whose noise is not a table of betas."""
    if config.get("use_flow_sigmas") or config.get("prediction_type") == "flow_prediction":
        raise ValueError("a flow matching schedule (`use_flow_sigmas`) is not variance preserving")
    if config.get("snr_shift_scale") not in (None, 1, 1.0):
        raise ValueError("`snr_shift_scale` moves the noise levels of the betas: only 1 is supported")
    if config.get("timestep_values") is not None:
        raise ValueError("`timestep_values` gives the network other timesteps than its betas: only null is supported")
    # A class whose dependency is missing is a stand-in that takes anything ("args").
    if parameters and not {"trained_betas", "args"} & parameters.keys():
        name = config["_class_name"]
        raise ValueError(f"{name} has no betas: its noise is variance exploding or a flow, not variance preserving")


def read_prediction_type(config: dict) -> str | None:
    """The prediction type of a config, if it says one; in 2022 `predict_epsilon` said it."""
    # What a live scheduler fills in from its defaults says nothing.
    is_default = "prediction_type" in (config.get("_use_default_values") or ())
    given, old = config.get("prediction_type"), config.get("predict_epsilon")
    if old is None:
        return given
    if not isinstance(old, bool):
        raise ValueError(f"`predict_epsilon` must be true or false, not {old!r}")
    if given is None or is_default:
        return "epsilon" if old else "sample"
    if (given == "epsilon") != old:
        raise ValueError(
            f"`predict_epsilon: {str(old).lower()}` contradicts `prediction_type: {given}`: take the wrong one out"
        )
    return given


def resolve_betas(
    trained_betas: Sequence[float] | None,
    beta_schedule: str,
    num_train_timesteps: int,
    beta_start: float,
    beta_end: float,
) -> list[float]:
    """The table of betas that a scheduler's arguments stand for."""
    what = "`trained_betas`"
    if trained_betas is not None:
        betas = np.asarray(trained_betas, dtype=np.float64).tolist()
    elif beta_schedule == "cosine":
        return canonical_betas(num_train_timesteps)
    else:
        what = f"the betas of {beta_schedule!r}, {beta_start} to {beta_end},"
        try:
            stock = diffusers.DDPMScheduler(num_train_timesteps, beta_start, beta_end, beta_schedule)
        except NotImplementedError as error:
            raise ValueError(f"`beta_schedule` {beta_schedule!r} is not one of diffusers'") from error
        betas = stock.betas.double().tolist()
    if not all(0 <= beta <= 1 for beta in betas) or not any(betas):
        raise ValueError(f"{what} must be numbers in [0, 1], not all of them 0")
    return betas


def check_values(config: dict) -> None:
    """Raise `ValueError` for values in a scheduler's file that are of no use, before a scheduler is made of them."""
    count, betas = config.get("num_train_timesteps", 1000), config.get("trained_betas")
    if not isinstance(count, int) or count < 1:
        raise ValueError(f"`num_train_timesteps` must be a positive integer, not {count!r}")
    for name in ("beta_start", "beta_end"):
        if not isinstance(config.get(name, 0.0), (int, float)):
            raise ValueError(f"`{name}` must be a number, not {config[name]!r}")
    if betas is not None and (not isinstance(betas, list) or len(betas) != count):
        held = f"are {len(betas)}" if isinstance(betas, list) else "are no list"
        raise ValueError(f"`trained_betas` {held}, but `num_train_timesteps` is {count}: they must be as many numbers")
    metadata = config.get("_progdistill") or {}
    if not isinstance(metadata, dict) or not all(
        isinstance(metadata.get(name), (kind, type(None))) for name, kind in METADATA_KINDS.items()
    ):
        raise ValueError(f"`_progdistill` is not what this package writes: {str(metadata)[:100]}")
