"""The configs of other scheduler classes: what they leave out, and which of them have no betas."""

import inspect

import diffusers


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


def check_variance_preserving(config: dict):
    """Raise `ValueError` for the config of a scheduler whose noise is not a table of betas."""
    if config.get("use_flow_sigmas") or config.get("prediction_type") == "flow_prediction":
        raise ValueError("a flow matching schedule (`use_flow_sigmas`) is not variance preserving")
    name = config.get("_class_name")
    source = getattr(diffusers, name, None) if isinstance(name, str) else None
    # A class whose dependency is missing is a stand-in that takes anything ("args").
    if source is not None and not {"trained_betas", "args"} & {*inspect.signature(source.__init__).parameters}:
        raise ValueError(f"{name} has no betas: its noise is variance exploding or a flow, not variance preserving")
