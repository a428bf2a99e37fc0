"""
A chain under FSDP 2 on the processes of torchrun: `python -m torch.distributed.run ... sharded_run.py WORDS ...`.

accelerate shards on GPUs alone, so its states are told here, after they are made, that this is FSDP. With `STOP=1` in
the environment the processes end as if they were killed, when their first checkpoint is written.
"""

import os
import sys

import torch
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch.distributed.tensor import DTensor

import diffusers_progdistill.training.run as run_module
from diffusers_progdistill.commands.main import main
from diffusers_progdistill.training import loop
from diffusers_progdistill.training.checkpointing import Checkpoints


def sharded(make):
    """An accelerator of ours that takes its processes for GPUs."""

    def made(*args):
        accelerator = make(*args)
        plugin = FullyShardedDataParallelPlugin(
            fsdp_version=2,
            auto_wrap_policy="transformer_based_wrap",
            transformer_cls_names_to_wrap=["ResnetBlock2D", "Attention"],
        )
        if accelerator.mixed_precision != "no":
            plugin.set_mixed_precision(accelerator.mixed_precision)
        for state in (AcceleratorState, PartialState):
            state._shared_state.update(distributed_type=DistributedType.FSDP, fsdp_plugin=plugin)
        return accelerator

    return made


def watched(prepare):
    """Says how much of the model each process holds once it is prepared."""

    def prepared(accelerator, model, optimizer):
        whole = sum(p.numel() for p in model.parameters())
        model, optimizer, parameters = prepare(accelerator, model, optimizer)
        assert all(isinstance(p, DTensor) for p in parameters)
        assert all(isinstance(p, DTensor) for group in optimizer.param_groups for p in group["params"])
        share = sum(p.to_local().numel() for p in parameters) / whole
        accelerator.print(f"each process holds {share:.2f} of the parameters")
        return model, optimizer, parameters

    return prepared


def stopping(save):
    """Ends the process after the checkpoint."""

    def saved(*args):
        save(*args)
        os._exit(9)

    return saved


if __name__ == "__main__":
    torch.set_num_threads(1)
    run_module.make_accelerator = sharded(run_module.make_accelerator)
    loop.prepare = watched(loop.prepare)
    if os.environ.get("STOP"):
        Checkpoints.save = stopping(Checkpoints.save)
    sys.exit(main(sys.argv[1:]))
