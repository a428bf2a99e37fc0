"""Training whose parameters are spread over the processes (FSDP 2), and the whole tensors that are written of it."""

import torch
from accelerate import Accelerator
from accelerate.utils import FullyShardedDataParallelPlugin
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy
from torch.distributed.tensor import DTensor, distribute_tensor

from ..errors import InputError


# The blocks of a UNet that are wrapped one by one.
WRAPPED = ("ResnetBlock2D", "Attention")


def take_local(tensor: torch.Tensor) -> torch.Tensor:
    """What this process holds of a tensor; it shares its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def take_whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor; called by all processes."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def place(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A whole tensor, which every process has, shared as another one is; called by all processes."""
    values = values.to(like.device)
    return distribute_tensor(values, like.device_mesh, like.placements) if isinstance(like, DTensor) else values


def prepare(
    accelerator: Accelerator, model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[torch.nn.Module, torch.optim.Optimizer, list[torch.nn.Parameter]]:
    """
    Prepare a model and its optimizer, and list the parameters that are trained from here on: under FSDP 2 those of
    before are none of them. FSDP 2 that finds nothing to wrap, or leaves the parameters whole, is refused.
    """
    if accelerator.is_fsdp2:
        _fit_classes(accelerator.state.fsdp_plugin, model)
    model, optimizer = accelerator.prepare(model, optimizer)
    parameters = list(model.parameters())
    if accelerator.is_fsdp2 and not all(isinstance(p, DTensor) for p in parameters):
        raise InputError("FSDP was asked for, but accelerate left the parameters whole: use MULTI_GPU")
    return model, optimizer, parameters


def _fit_classes(plugin: FullyShardedDataParallelPlugin, model: torch.nn.Module) -> None:
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


def gather_network(model: torch.nn.Module, model_class: type) -> torch.nn.Module:
    """A plain network of its class with the whole weights of a sharded one, in every process; called by all."""
    tensors = {name: take_whole(tensor) for name, tensor in model.state_dict().items()}
    device = next(iter(tensors.values())).device
    network = model_class.from_config(model.config).to(device)
    network.load_state_dict(tensors)
    return network
