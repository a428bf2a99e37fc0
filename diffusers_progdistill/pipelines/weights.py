"""A component of any class, made of its config and weights: they fit each other, or one line says why not."""

import contextlib
import logging
import re
from collections.abc import Iterable, Iterator, Sized
from pathlib import Path

import torch
from accelerate import init_empty_weights
from diffusers import ConfigMixin, ModelMixin
from diffusers.models.model_loading_utils import load_state_dict
from diffusers.utils import logging as diffusers_logging

from ..errors import InputError, describe_reason
from ..trust import read_json
from .source import ModelSource


logger = logging.getLogger(__name__)

STEM = "diffusion_pytorch_model"
# Whole or a shard, with the variant in it, if any.
WEIGHTS_FILE = re.compile(rf"{STEM}(?:\.(?P<variant>[\w-]+?))?(?:-\d+-of-\d+)?\.(?:safetensors|bin)")
# What torch.compile, FSDP and activation checkpointing put into the middle of a weight's name.
WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}


def load_network(kind: type[ModelMixin], folder: Path, source: ModelSource, old_name: str | None = None) -> ModelMixin:
    """
    The network of a class in a folder, in single precision, frozen in nothing and in evaluation mode. Its weights are
    safetensors or `.bin`, whole or in shards, of the variant that `source` names. Earlier releases of diffusers may
    have called the class `old_name`.
    """
    what = source.what
    config = read_json(folder / "config.json", what)
    if config.get("_class_name", kind.__name__) not in (kind.__name__, old_name):
        raise InputError(f"{what} has a {config['_class_name']}: it must be a {kind.__name__}")
    if config.get("quantization_config"):
        raise InputError(f"{what} has quantized weights: give the model with weights in floating point")
    try:
        with init_empty_weights():
            network = build_from_config(kind, config, what)
    except Exception as error:  # the blocks raise many kinds for what is one thing to a user
        raise InputError(f"{what} has a config that makes no {kind.__name__}: {describe_reason(error)}") from error
    state = {}
    for path in find_weights(folder, source):
        state |= read_weights(path, what)
    check_finite(state, what)
    state = rename_weights(state, network, what)
    check_fit(state, network, what)
    network.load_state_dict({k: v.float() for k, v in state.items()}, assign=True)
    return network.eval()


def build_from_config(kind: type[ConfigMixin], config: dict, what: str) -> ConfigMixin:
    """An object of a config; keys that its class does not know are told in one line. Raises what the class raises."""
    with quiet_diffusers():
        _, unknown, _ = kind.extract_init_dict(config)
        made = kind.from_config({k: v for k, v in config.items() if k not in unknown})
    if unknown:
        names = listed(sorted(unknown))
        logger.warning("%s: keys that %s does not know in its config are ignored: %s", what, kind.__name__, names)
    return made


@contextlib.contextmanager
def quiet_diffusers() -> Iterator[None]:
    """What it says of old names and unknown keys is of no use to who only reads a model."""
    verbosity = diffusers_logging.get_verbosity()
    diffusers_logging.set_verbosity_error()
    try:
        yield
    finally:
        diffusers_logging.set_verbosity(verbosity)


def find_weights(folder: Path, source: ModelSource) -> list[Path]:
    """The files of the wanted variant; safetensors come first. [`InputError`] says which variants there are."""
    what, variant = source.what, source.variant
    middle = "" if variant is None else f".{variant}"
    for kind in ("safetensors", "bin"):
        for index in (f"{STEM}.{kind}.index{middle}.json", f"{STEM}{middle}.{kind}.index.json"):
            if (folder / index).is_file():
                return _find_shards(folder / index, what)
        if (folder / f"{STEM}{middle}.{kind}").is_file():
            return [folder / f"{STEM}{middle}.{kind}"]
    names = [*(path.name for path in folder.iterdir() if path.is_file()), *source.list_names(folder.name)]
    variants = {match["variant"] for match in map(WEIGHTS_FILE.fullmatch, names) if match}
    ways = [f"--variant {v}" for v in sorted(variants - {None})]
    if not variants:
        ways = [f"a {STEM}.safetensors or .bin in {folder.name}"]
    elif None in variants:
        ways.append("leave --variant out")
    wanted = f"weights of the variant {variant!r}" if variant else "weights"
    raise InputError(f"{what} has no {wanted}: give {' or '.join(ways)}")


def _find_shards(index: Path, what: str) -> list[Path]:
    table = read_json(index, what).get("weight_map")
    if not isinstance(table, dict):
        raise InputError(f"{what}: {index.name} has no table of shards")
    paths = [index.parent / name for name in sorted(set(table.values()))]
    if missing := [path.name for path in paths if not path.is_file()]:
        raise InputError(f"{what}: {index.name} names {listed(missing)}, not there")
    return paths


def read_weights(path: Path, what: str) -> dict[str, torch.Tensor]:
    """The tensors of a file, as they are."""
    try:
        # safetensors, or plain tensors unpickled with `weights_only`.
        state = load_state_dict(str(path))
    except Exception as error:  # a damaged or hostile file may raise anything
        cause = error
        # What diffusers raises is of use for a file of git-lfs that was not pulled; else the first cause says more.
        while cause.__context__ is not None and "git-lfs" not in str(cause):
            cause = cause.__context__
        raise InputError(f"{what}: {path.name} cannot be read: {describe_reason(cause)}") from error
    if not isinstance(state, dict) or not all(torch.is_tensor(v) for v in state.values()):
        inside = f": it holds {listed(map(str, state))}" if isinstance(state, dict) else ""
        raise InputError(f"{what}: {path.name} is not a table of tensors{inside}; give the network's own weights")
    return state


def check_finite(state: dict[str, torch.Tensor], what: str) -> None:
    """Refuse weights that are no numbers a network can be trained with."""
    if wrong := [name for name, tensor in state.items() if not tensor.is_floating_point()]:
        kind = str(state[wrong[0]].dtype).removeprefix("torch.")
        raise InputError(f"{what}: weights must be floating point numbers, not {kind}: {listed(wrong)}")
    if wrong := [name for name, tensor in state.items() if not torch.isfinite(tensor.float()).all()]:
        raise InputError(f"{what}: {listed(wrong)} {_are(wrong)} not finite (NaN or infinity): the file is damaged")


def rename_weights(state: dict[str, torch.Tensor], network: ModelMixin, what: str) -> dict[str, torch.Tensor]:
    """
    The tensors under the names that the network has for them: what wrappers put around names is taken off, and what
    stands before all of them (`module.`, `unet.`, ...), and layers of older releases get their present names.
    """
    own = {name.split(".")[0] for name in network.state_dict()}
    parts = [name.split(".") for name in state]
    taken = {part for name in parts for part in name if part in WRAPPERS}
    parts = [[part for part in name if part not in WRAPPERS] for name in parts]
    while len(starts := {name[0] for name in parts}) == 1 and not starts & own and min(map(len, parts)) > 1:
        taken |= starts
        parts = [name[1:] for name in parts]
    renamed = dict(zip(map(".".join, parts), state.values()))
    if len(renamed) < len(state):
        raise InputError(f"{what}: some weights are there twice, with and without {listed(sorted(taken))}")
    if taken:
        logger.warning("%s: taken off the names of its weights: %s", what, listed(sorted(taken)))
    network._fix_state_dict_keys_on_load(renamed)
    return renamed


def check_fit(state: dict[str, torch.Tensor], network: ModelMixin, what: str) -> None:
    """Refuse weights of which names are missing or too many, or shapes are others."""
    expected, problems = network.state_dict(), []
    if missing := sorted(expected.keys() - state.keys()):
        problems.append(f"{listed(missing)} {_are(missing)} missing")
    if unexpected := sorted(state.keys() - expected.keys()):
        problems.append(f"{listed(unexpected)} {_are(unexpected)} not of this network")
    for name in sorted(k for k in expected.keys() & state.keys() if expected[k].shape != state[k].shape)[:1]:
        there, wanted = ("x".join(map(str, t.shape)) for t in (state[name], expected[name]))
        problems.append(f"{name} is {there} in the file and {wanted} in the config")
    if problems:
        raise InputError(f"{what} has weights that do not fit its config: {'; '.join(problems)}")


def listed(names: Iterable[str]) -> str:
    """The first few names, and how many there are beside them."""
    names = list(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _are(names: Sized) -> str:
    return "is" if len(names) == 1 else "are"
