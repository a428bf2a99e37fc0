"""What a thing is by its content: the same weights under another path, in another format, are the same model."""

import hashlib
import inspect
import json
from collections.abc import Iterable

import torch


# What the betas were made by, which has several names; the betas themselves are in `trained_betas`.
BETA_KEYS = {"beta_start", "beta_end", "beta_schedule"}
# Which of the classes are drawn and which one stands for none: the run says it where the teacher does not.
CLASS_KEYS = {"known_labels", "num_classes", "null_label"}
# Keys of a scheduler's config that say how it samples, not what the network was trained on.
SAMPLING_KEYS = {
    *("clip_sample", "clip_sample_range", "thresholding", "dynamic_thresholding_ratio", "sample_max_value"),
    *("timestep_spacing", "steps_offset", *BETA_KEYS),
}


def content_key(*parts) -> str:
    """A name made of tensors and texts, which changes when any of them does."""
    digest = hashlib.blake2b(digest_size=16)
    update_digest(digest, parts)
    return digest.hexdigest()


def update_digest(digest, parts: Iterable):
    """Go on with a digest of [`content_key`]."""
    for part in parts:
        if torch.is_tensor(part):
            digest.update(f"{part.dtype}{tuple(part.shape)}".encode())
            # The tensor's own memory, one tensor at a time: no copy of a model is made.
            digest.update(part.contiguous().flatten().numpy())
        else:
            digest.update(f"{part}\0".encode())


def model_key(unet, scheduler, *more: str) -> str:
    """
    A name of the weights and of all that is done with them, so that no figures of others are taken for theirs; `more`
    is what else its images depend on.
    """
    # Without the private part, which names versions and places.
    plain = [
        {k: v for k, v in config.items() if not k.startswith("_") and k not in BETA_KEYS}
        for config in (unet.config, scheduler.config)
    ]
    configs = [json.dumps(config, sort_keys=True, default=str) for config in plain]
    return content_key(*configs, *more, *_list_weights(unet))


def teacher_key(unet, scheduler) -> str:
    """
    A name of what a student learns from: the weights in single precision, the parts of the network's config that
    change what it computes, and the schedule. The same for any path, file format and version of diffusers.
    """
    # Later versions of diffusers add keys, whose defaults mean what was done before there was a key.
    defaults = {name: _plain(p.default) for name, p in inspect.signature(type(unet).__init__).parameters.items()}
    # The size of its images is the run's: a network fits any.
    network = {k: _plain(v) for k, v in unet.config.items() if not k.startswith("_") and k != "sample_size"}
    network = {k: v for k, v in network.items() if k not in defaults or v != defaults[k]}
    config = {k: v for k, v in scheduler.config.items() if k not in SAMPLING_KEYS}
    metadata = {k: v for k, v in (config.pop("_progdistill", None) or {}).items() if k not in CLASS_KEYS}
    schedule = {k: v for k, v in config.items() if not k.startswith("_")}
    described = [json.dumps(part, sort_keys=True, default=str) for part in (network, [schedule, metadata])]
    return content_key("teacher", *described, *_list_weights(unet))


def _list_weights(unet):
    state = unet.state_dict()
    return (part for name in sorted(state) for part in (name, state[name].cpu().float()))


def _plain(value):
    return list(value) if isinstance(value, tuple) else value
