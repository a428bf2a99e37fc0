"""What a thing is by its content: the same weights under another path, in another format, are the same model."""

import hashlib
import inspect
import json
from collections.abc import Iterable, Iterator

import torch
from diffusers import ModelMixin, SchedulerMixin


# What the betas were made by, which has several names; the betas themselves are in `trained_betas`.
BETA_KEYS = {"beta_start", "beta_end", "beta_schedule"}
# Which of the classes are drawn and which one stands for none: the run says it where the teacher does not.
CLASS_KEYS = {"known_labels", "num_classes", "null_label"}
# Keys of a scheduler's config that say how it samples, not what the network was trained on.
SAMPLING_KEYS = {
    *("clip_sample", "clip_sample_range", "thresholding", "dynamic_thresholding_ratio", "sample_max_value"),
    *("timestep_spacing", "steps_offset", *BETA_KEYS),
}


def content_key(*parts: object) -> str:
    """A name made of tensors and texts, which changes when any of them does."""
    digest = hashlib.blake2b(digest_size=16)
    update_digest(digest, parts)
    return digest.hexdigest()


def update_digest(digest: "hashlib._Hash", parts: Iterable) -> None:
    """Go on with a digest of [`content_key`]."""
    for part in parts:
        if torch.is_tensor(part):
            digest.update(f"{part.dtype}{tuple(part.shape)}".encode())
            # The tensor's own memory, one tensor at a time: no copy of a model is made.
            digest.update(part.contiguous().flatten().numpy())
        else:
            digest.update(f"{part}\0".encode())


def model_key(network: ModelMixin, scheduler: SchedulerMixin, *more: str) -> str:
    """
    A name of the weights and of all that is done with them, so that no figures of others are taken for theirs; `more`
    is what else its images depend on.
    """
    # Without the private part, which names versions and places.
    configs = [_select(component.config, BETA_KEYS) for component in (network, scheduler)]
    return content_key(*map(_to_json, configs), *more, *_list_weights(network))


def teacher_key(network: ModelMixin, scheduler: SchedulerMixin) -> str:
    """
    A name of what a student learns from: the weights in single precision, the parts of the network's config that
    change what it computes, and the schedule. The same for any path, file format and version of diffusers.
    """
    # Later versions of diffusers add keys, whose defaults mean what was done before there was a key.
    defaults = {name: _plain(p.default) for name, p in inspect.signature(type(network).__init__).parameters.items()}
    # The size of its images is the run's: a network fits any.
    config = _select(network.config, {"sample_size"})
    config = {k: v for k, v in config.items() if k not in defaults or _plain(v) != defaults[k]}
    metadata = {k: v for k, v in (scheduler.config.get("_progdistill") or {}).items() if k not in CLASS_KEYS}
    schedule = [_select(scheduler.config, SAMPLING_KEYS), metadata]
    return content_key("teacher", _to_json(config), _to_json(schedule), *_list_weights(network))


def _select(config: dict, left_out: set[str]) -> dict:
    return {k: v for k, v in config.items() if not k.startswith("_") and k not in left_out}


def _to_json(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _list_weights(network: ModelMixin) -> Iterator[str | torch.Tensor]:
    state = network.state_dict()
    return (part for name in sorted(state) for part in (name, state[name].cpu().float()))
