"""The configs of other scheduler classes: what they leave out, and which of them have no betas."""

import inspect

import diffusers
import numpy as np

from ..processes.betas import canonical_betas


def defaults_shared_with(ours: type, class_name: str | None) -> dict:
    """
    What keys that a config file leaves out mean: the defaults of the diffusers class that wrote it, as far as `ours`
    takes them.
    """
    source = getattr(diffusers, class_name, None) if isinstance(class_name, str) else None
    if source is None:
        return {}
    taken = inspect.signature(ours.__init__).parameters
    theirs = inspect.signature(source.__init__).parameters
    return {k: p.default for k, p in theirs.items() if k in taken and p.default is not p.empty}


def in_present_words(config: dict) -> dict:
    """
    A scheduler's config with the keys of older releases in the words of today. `predict_epsilon`, of 2022, is what
    `prediction_type` says now.

    Raises:
        `ValueError`: If both are there and contradict each other.
    """
    if config.get("predict_epsilon") is None:
        return config
    if not isinstance(config["predict_epsilon"], bool):
        raise ValueError(f"`predict_epsilon` must be true or false, not {config['predict_epsilon']!r}")
    config = dict(config)
    old = "epsilon" if config.pop("predict_epsilon") else "sample"
    # What a live scheduler fills in from its defaults says nothing.
    defaults = config.get("_use_default_values") or ()
    given = None if "prediction_type" in defaults else config.get("prediction_type")
    if given is None:
        config["prediction_type"] = old
        config["_use_default_values"] = [name for name in defaults if name != "prediction_type"]
    elif (given == "epsilon") != (old == "epsilon"):
        raise ValueError(
            f"`predict_epsilon: {str(old == 'epsilon').lower()}` contradicts `prediction_type: {given}`: take the"
            " wrong one out"
        )
    return config


def resolve_betas(
    trained_betas, beta_schedule: str, num_train_timesteps: int, beta_start: float, beta_end: float
) -> list[float]:
    """
    The table of betas that a scheduler's arguments stand for.

    Raises:
        `ValueError`: For a schedule that is not known, or a table that is none.
    """
    if trained_betas is not None:
        return _checked(np.asarray(trained_betas, dtype=np.float64).tolist(), "`trained_betas`")
    if beta_schedule == "cosine":
        return canonical_betas(num_train_timesteps)
    try:
        stock = diffusers.DDPMScheduler(num_train_timesteps, beta_start, beta_end, beta_schedule)
    except NotImplementedError as error:
        raise ValueError(f"`beta_schedule` {beta_schedule!r} is not one of diffusers'") from error
    return _checked(stock.betas.double().tolist(), f"the betas of {beta_schedule!r}, {beta_start} to {beta_end},")


def _checked(betas: list[float], what: str) -> list[float]:
    if not all(0 <= beta <= 1 for beta in betas) or not any(betas):
        raise ValueError(f"{what} must be numbers in [0, 1], not all of them 0")
    return betas


def check_values(config: dict):
    """Raise `ValueError` for values in the config of a scheduler that are of no use, before one is made of them."""
    count, betas = config.get("num_train_timesteps", 1000), config.get("trained_betas")
    if not _is_whole(count, 1):
        raise ValueError(f"`num_train_timesteps` must be a positive integer, not {count!r}")
    for name in ("beta_start", "beta_end"):
        if not isinstance(config.get(name, 0.0), (int, float)):
            raise ValueError(f"`{name}` must be a number, not {config[name]!r}")
    if betas is not None and not isinstance(betas, list):
        raise ValueError(f"`trained_betas` must be a list of numbers, not {betas!r}")
    if betas is not None and len(betas) != count:
        raise ValueError(f"`trained_betas` are {len(betas)}, but `num_train_timesteps` {count}: they must be as many")
    metadata = config.get("_progdistill")
    if metadata is not None and not _is_metadata(metadata):
        raise ValueError(f"`_progdistill` is not what this package writes: {str(metadata)[:100]}")


def _is_metadata(metadata) -> bool:
    if not isinstance(metadata, dict):
        return False
    least = {"num_inference_steps": 1, "num_classes": 1, "null_label": 0}
    names, known, scale = (metadata.get(k) for k in ("class_names", "known_labels", "guidance_scale"))
    return (
        all(metadata.get(name) is None or _is_whole(metadata[name], k) for name, k in least.items())
        and (names is None or isinstance(names, list) and all(isinstance(name, str) for name in names))
        and (known is None or isinstance(known, list) and all(_is_whole(label, 0) for label in known))
        and (scale is None or isinstance(scale, (int, float)))
    )


def _is_whole(value, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def unknown_keys(config: dict) -> list[str]:
    """The keys of a scheduler's config that neither its class nor any that takes the same betas has."""
    names = (
        config.get("_class_name"),
        "DDPMScheduler",
        "DDIMScheduler",
        "DPMSolverMultistepScheduler",
        "PNDMScheduler",
    )
    classes = [getattr(diffusers, name, None) for name in names if isinstance(name, str)]
    known = {key for c in classes if c is not None for key in inspect.signature(c.__init__).parameters}
    # Of 2022: `tensor_format` chose between torch and numpy, the other is what `trained_betas` is to timesteps.
    known |= {"tensor_format", "timestep_values", "predict_epsilon", "snr_shift_scale"}
    return sorted(key for key in config if not key.startswith("_") and key not in known)


def check_variance_preserving(config: dict):
    """Raise `ValueError` for the config of a scheduler whose noise is not a table of betas."""
    if config.get("use_flow_sigmas") or config.get("prediction_type") == "flow_prediction":
        raise ValueError("a flow matching schedule (`use_flow_sigmas`) is not variance preserving")
    if config.get("snr_shift_scale") not in (None, 1, 1.0):
        raise ValueError("`snr_shift_scale` moves the noise levels of the betas: only 1 is supported")
    if config.get("timestep_values") is not None:
        raise ValueError("`timestep_values` gives the network other timesteps than its betas: only null is supported")
    name = config.get("_class_name")
    source = getattr(diffusers, name, None) if isinstance(name, str) else None
    # A class whose dependency is missing is a stand-in that takes anything ("args").
    if source is not None and not {"trained_betas", "args"} & {*inspect.signature(source.__init__).parameters}:
        raise ValueError(f"{name} has no betas: its noise is variance exploding or a flow, not variance preserving")
