"""What a run really uses, whoever asked for it: the first line that it prints, and what its record says."""

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType

from ..record import format_hardware
from .launcher import FSDP, is_asked


def describe_hardware(accelerator: Accelerator) -> dict:
    """What a run really uses, as `chain.json` keeps it."""
    device = accelerator.device
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "num_processes": accelerator.num_processes,
        "distributed_type": DistributedType(accelerator.distributed_type).value,
        "sharded": accelerator.is_fsdp2,
        "mixed_precision": accelerator.mixed_precision,
        "gradient_accumulation_steps": accelerator.gradient_accumulation_steps,
        "dynamo_backend": accelerator.state.dynamo_plugin.backend.value.lower(),
    }


def print_hardware(accelerator: Accelerator):
    """The first line of a run. accelerate shards on GPUs alone, and says nothing where it does not."""
    hardware, more = describe_hardware(accelerator), ""
    if is_asked(FSDP) and not hardware["sharded"]:
        more = f"; FSDP was asked for, but accelerate does not shard on {accelerator.device.type}"
        more += " with one process" if accelerator.num_processes == 1 and accelerator.device.type != "cpu" else ""
    accelerator.print(f"running on {format_hardware(hardware)}{more}")
