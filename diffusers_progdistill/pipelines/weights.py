"""The weights of a network, read from its folder: they fit its config and are finite, or one line says why not."""

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import init_empty_weights
from diffusers import UNet2DModel
from diffusers.models.model_loading_utils import load_state_dict
from diffusers.utils import logging as diffusers_logging

from ..errors import InputError, describe_reason


logger = logging.getLogger(__name__)

STEM = "diffusion_pytorch_model"
# What torch.compile, FSDP and activation checkpointing put into the middle of a weight's name.
WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
# How many names a message shows.
SHOWN = 3


def load_unet(
    folder: Path, config: dict, what: str, variant: str | None = None, names_there: Callable[[], list[str]] = list
) -> UNet2DModel:
    """
    The network in a folder, in single precision, frozen in nothing and in evaluation mode.

    Args:
        folder (`Path`): Where the weights lie: safetensors or `.bin`, whole or in shards.
        config (`dict`): The network's config.
        what (`str`): What a message calls the model.
        variant (`str`, *optional*): Which weights, for example `fp16`.
        names_there (`Callable`, *optional*): Asked, if they are not there, for the names of files that were not
            downloaded.

    Raises:
        [`InputError`]: If there are none, they do not fit the config, or are not finite.
    """
    unet = empty_unet(config, what)
    state = read_weights(weight_files(folder, what, variant, names_there), what)
    check_values(state, what)
    state = renamed(state, unet, what)
    unet.load_state_dict({k: v.float() for k, v in state.items()}, assign=True)
    return unet.eval()


def empty_unet(config: dict, what: str) -> UNet2DModel:
    """The network of a config without weights; keys that no `UNet2DModel` has are told in one line."""
    known = UNet2DModel._get_init_keys(UNet2DModel)
    given = {k: v for k, v in config.items() if not k.startswith("_")}
    if unknown := sorted(given.keys() - known - {"quantization_config"}):
        logger.warning("%s: keys of its config that UNet2DModel does not know are ignored: %s", what, listed(unknown))
    if config.get("quantization_config"):
        raise InputError(f"{what} has quantized weights: give the model with weights in floating point")
    verbosity = diffusers_logging.get_verbosity()
    # What it would say of old names of options is of no use to who only reads a model.
    diffusers_logging.set_verbosity_error()
    try:
        with init_empty_weights():
            return UNet2DModel(**{k: v for k, v in given.items() if k in known})
    except Exception as error:  # the blocks raise many kinds for what is one thing to a user
        raise InputError(f"{what} has a config that makes no UNet2DModel: {describe_reason(error)}") from error
    finally:
        diffusers_logging.set_verbosity(verbosity)


def read_weights(paths: list[Path], what: str) -> dict[str, torch.Tensor]:
    """
    The tensors of a network's files, as they are.

    Raises:
        [`InputError`]: If one cannot be read.
    """
    state = {}
    for path in paths:
        try:
            # safetensors, or plain tensors unpickled with `weights_only`.
            part = load_state_dict(str(path))
        except Exception as error:  # a damaged or hostile file may raise anything
            raise InputError(f"{what}: {path.name} cannot be read: {_reason(path, error)}") from error
        if not isinstance(part, dict) or not all(torch.is_tensor(v) for v in part.values()):
            inside = f": it holds {listed(map(str, part))}" if isinstance(part, dict) else ""
            raise InputError(f"{what}: {path.name} is not a table of tensors{inside}; give the network's own weights")
        state |= part
    return state


def _reason(path: Path, error: Exception) -> str:
    with open(path, "rb") as file:
        start = file.read(40)
    if start.startswith(b"version https://git-lfs"):
        return "it is the pointer to a file that was not downloaded; run `git lfs pull` in its folder"
    cause = error.__cause__ or error.__context__ or error
    while cause.__context__ is not None:
        cause = cause.__context__
    return describe_reason(cause)


def weight_files(
    folder: Path, what: str, variant: str | None = None, names_there: Callable[[], list[str]] = list
) -> list[Path]:
    """
    The files of a variant of a network's weights; safetensors come first.

    Raises:
        [`InputError`]: If there are none, with the variants that there are.
    """
    middle = "" if variant is None else f".{variant}"
    for kind in ("safetensors", "bin"):
        for index in (f"{STEM}.{kind}.index{middle}.json", f"{STEM}{middle}.{kind}.index.json"):
            if (folder / index).is_file():
                return _shards(folder / index, what)
        if (folder / f"{STEM}{middle}.{kind}").is_file():
            return [folder / f"{STEM}{middle}.{kind}"]
    others = find_variants([*(path.name for path in folder.iterdir() if path.is_file()), *names_there()])
    name = f"weights of the variant {variant!r}" if variant else "weights"
    if others - {None}:
        named = " or ".join(f"--variant {v}" for v in sorted(others - {None}))
        raise InputError(
            f"{what} has no {name}" + (f", only others: give {named}" + (" or none" if None in others else ""))
        )
    if None in others:
        raise InputError(f"{what} has no {name}: leave --variant out")
    raise InputError(f"{what} has no {name}: there must be a {STEM}.safetensors or .bin in {folder.name}")


def find_variants(names: list[str]) -> set[str | None]:
    """The variants of a network's weights among names of files; `None` is the plain one."""
    pattern = re.compile(rf"{STEM}(?:\.(?P<before>[\w-]+?))?(?:-\d+-of-\d+)?\.(?:safetensors|bin)")
    found = [pattern.fullmatch(name) for name in names]
    return {match["before"] for match in found if match}


def _shards(index: Path, what: str) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{what}: {index.name} has no table of shards") from error
    if missing := [name for name in names if not (index.parent / name).is_file()]:
        raise InputError(f"{what}: {index.name} names {listed(missing)}, which {_are(missing)} not there")
    return [index.parent / name for name in names]


def check_values(state: dict[str, torch.Tensor], what: str):
    """Refuse weights that are no numbers a network can be trained with."""
    if wrong := [name for name, tensor in state.items() if not tensor.is_floating_point()]:
        kind = str(state[wrong[0]].dtype).removeprefix("torch.")
        raise InputError(f"{what}: weights must be floating point numbers, but {listed(wrong)} {_are(wrong)} {kind}")
    if wrong := [name for name, tensor in state.items() if not torch.isfinite(tensor.float()).all()]:
        raise InputError(f"{what}: {listed(wrong)} {_are(wrong)} not finite (NaN or infinity): the file is damaged")


def renamed(state: dict[str, torch.Tensor], unet: UNet2DModel, what: str) -> dict[str, torch.Tensor]:
    """
    The tensors under the names that the network has for them: what wrappers put around names is taken off, and the
    attention layers of 2022 (query, key, value, proj_attn) get their present ones.

    Raises:
        [`InputError`]: If names are missing or too many, or a shape is another.
    """
    expected = unet.state_dict()
    plain, taken = without_wrappers(state, {name.split(".")[0] for name in expected})
    if taken:
        if len(plain) < len(state):
            raise InputError(f"{what}: some weights are there twice, with and without {listed(sorted(taken))}")
        logger.warning("%s: taken off the names of its weights: %s", what, listed(sorted(taken)))
    unet._fix_state_dict_keys_on_load(plain)
    problems = []
    if missing := sorted(expected.keys() - plain.keys()):
        problems.append(f"{listed(missing)} {_are(missing)} missing")
    if unexpected := sorted(plain.keys() - expected.keys()):
        problems.append(f"{listed(unexpected)} {_are(unexpected)} not of this network")
    shapes = [k for k in expected.keys() & plain.keys() if expected[k].shape != plain[k].shape]
    if shapes := sorted(shapes):
        first = shapes[0]
        sizes = f"{first} is {_size(plain[first])} in the file and {_size(expected[first])} in the config"
        more = f" and {len(shapes) - 1} more differ" if len(shapes) > 1 else ""
        problems.append(sizes + more)
    if problems:
        raise InputError(f"{what} has weights that do not fit its config: {'; '.join(problems)}")
    return plain


def without_wrappers(state: dict[str, torch.Tensor], first_parts: set[str]) -> tuple[dict, set[str]]:
    """
    Names without the parts of `WRAPPERS`, and without what stands before all of them (`module.`, `unet.`, ...), and
    the parts that were taken off. `first_parts` are what the network's own names begin with.
    """
    names = {name: name.split(".") for name in state}
    taken = {part for parts in names.values() for part in parts if part in WRAPPERS}
    names = {name: [part for part in parts if part not in WRAPPERS] for name, parts in names.items()}
    while names and all(len(parts) > 1 for parts in names.values()):
        starts = {parts[0] for parts in names.values()}
        if len(starts) != 1 or starts & first_parts:
            break
        taken |= starts
        names = {name: parts[1:] for name, parts in names.items()}
    return {".".join(parts): state[name] for name, parts in names.items()}, taken


def listed(names, shown: int = SHOWN) -> str:
    """The first few names, and how many there are beside them."""
    names = list(names)
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _are(names) -> str:
    return "is" if len(names) == 1 else "are"


def _size(tensor: torch.Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"
