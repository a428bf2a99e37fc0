"""Training whose parameters are spread over the processes (FSDP 2), and the whole tensors that are written of it."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy
from torch.distributed.tensor import DTensor, distribute_tensor

from ..errors import InputError


# The blocks of a UNet that are wrapped one by one.
WRAPPED = ("ResnetBlock2D", "Attention")
MODEL_NAME, OPTIMIZER_NAME, GROUPS_NAME = "model.safetensors", "optimizer.safetensors", "optimizer.json"
# What stands between a parameter's name and its state's in the optimizer's file; neither holds it.
SEPARATOR = "|"
WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def local(tensor: torch.Tensor) -> torch.Tensor:
    """What this process holds of a tensor; it shares its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor; called by all processes."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def fill(tensor: torch.Tensor, values: torch.Tensor):
    """Give a tensor the values of a whole one, which every process has."""
    if isinstance(tensor, DTensor):
        values = distribute_tensor(values.to(tensor.device), tensor.device_mesh, tensor.placements)
    local(tensor).copy_(local(values))


def prepare(accelerator, model: torch.nn.Module, optimizer: torch.optim.Optimizer):
    """
    Prepare a model and its optimizer.

    Returns:
        `tuple`: The model, the optimizer, and the list of the parameters that are trained from here on: under FSDP 2
            those of before are none of them.

    Raises:
        [`InputError`]: If FSDP 2 finds nothing to wrap, or leaves the parameters whole.
    """
    if accelerator.is_fsdp2:
        _fit_classes(accelerator.state.fsdp_plugin, model)
    model, optimizer = accelerator.prepare(model, optimizer)
    parameters = list(model.parameters())
    if accelerator.is_fsdp2 and not all(isinstance(p, DTensor) for p in parameters):
        raise InputError("FSDP was asked for, but accelerate left the parameters whole: use MULTI_GPU")
    return model, optimizer, parameters


def _fit_classes(plugin, model: torch.nn.Module):
    """Name the classes that the model has: accelerate takes no other, and not every UNet has attention."""
    if plugin.auto_wrap_policy is not transformer_auto_wrap_policy:
        return
    asked = plugin.transformer_cls_names_to_wrap or WRAPPED
    names = {type(module).__name__ for module in model.modules()}
    found = [name for name in asked if name in names]
    if not found:
        raise InputError(
            f"fsdp_transformer_layer_cls_to_wrap: {','.join(asked)} names no part of the model: it must be"
            f" {','.join(WRAPPED)}"
        )
    plugin.transformer_cls_names_to_wrap = found


def gathered(model: torch.nn.Module, model_class: type) -> torch.nn.Module:
    """A plain network of its class with the whole weights of a sharded one, in every process; called by all."""
    tensors = {name: whole(tensor) for name, tensor in model.state_dict().items()}
    device = next(iter(tensors.values())).device
    network = model_class.from_config(model.config).to(device)
    network.load_state_dict(tensors)
    return network


def save_whole(accelerator, model: torch.nn.Module, optimizer: torch.optim.Optimizer, folder: Path):
    """Write the whole weights and moments as safetensors and JSON; called by all processes."""
    weights, state = get_state_dict(model, optimizer, options=WHOLE)
    if accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        save_file({k: v.contiguous() for k, v in weights.items()}, folder / MODEL_NAME)
        moments = {f"{k}{SEPARATOR}{n}": v.contiguous() for k, s in state["state"].items() for n, v in s.items()}
        save_file(moments, folder / OPTIMIZER_NAME)
        (folder / GROUPS_NAME).write_text(json.dumps(state["param_groups"]), encoding="utf-8")


def load_whole(model: torch.nn.Module, optimizer: torch.optim.Optimizer, folder: Path):
    """Read what [`save_whole`] wrote, into as many processes as there are now; called by all."""
    state: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in load_file(folder / OPTIMIZER_NAME).items():
        parameter, _, key = name.partition(SEPARATOR)
        state.setdefault(parameter, {})[key] = tensor
    groups = json.loads((folder / GROUPS_NAME).read_text(encoding="utf-8"))
    set_state_dict(
        model,
        optimizer,
        model_state_dict=load_file(folder / MODEL_NAME),
        optim_state_dict={"state": state, "param_groups": groups},
        options=WHOLE,
    )
