"""
What `accelerate config`, `accelerate launch` and its environment ask of a run, where the command line says nothing:
the accelerator that is made of it, what this package refuses to do, and what the run says of it.
"""

import copy
import logging
import math
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import diffusers
import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedType,
    DynamoBackend,
    GradientAccumulationPlugin,
    InitProcessGroupKwargs,
    set_seed,
    str_to_bool,
)

from ..errors import InputError, describe_reason
from ..record import format_hardware
from .config import TrainingConfig
from .trackers import list_trackers


# How long processes wait for one that writes, measures or decodes images; the default is some minutes.
LONGEST_WAIT = timedelta(hours=2)
PRECISIONS = ("no", "fp16", "bf16")
PRECISION, ACCUMULATION = "ACCELERATE_MIXED_PRECISION", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS"
DYNAMO, FSDP = "ACCELERATE_DYNAMO_BACKEND", "ACCELERATE_USE_FSDP"
# Of the weights of a frozen network, as in diffusers' training scripts.
FROZEN_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
# What splits a model in ways that this package's training was not written for.
NOT_SUPPORTED = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed (distributed_type: DEEPSPEED, --use_deepspeed)",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM (distributed_type: MEGATRON_LM, --use_megatron_lm)",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism_config (--use_parallelism_config)",
}


def is_asked(name: str) -> bool:
    """Whether a variable of accelerate's says yes, in any of the words that accelerate knows."""
    try:
        return bool(str_to_bool(os.environ.get(name) or "false"))
    except ValueError:
        raise InputError(f"{name}={os.environ[name]} must be true or false") from None


def refuse_unsupported() -> None:
    """Refuse what accelerate may be asked for and this package cannot do, before anything is loaded."""
    for name, what in NOT_SUPPORTED.items():
        if is_asked(name):
            raise InputError(
                f"{what}, which {name} asks for, is not supported: use MULTI_GPU, or FSDP with fsdp_version: 2"
            )
    if found := sorted(name for name in os.environ if name.startswith("ACCELERATE_DEEPSPEED_")):
        raise InputError(f"{NOT_SUPPORTED['ACCELERATE_USE_DEEPSPEED']} is not supported: unset {found[0]}")
    backend = os.environ.get(DYNAMO) or "no"
    if backend.upper() not in DynamoBackend.list():
        raise InputError(f"{DYNAMO}={backend} must be one of {', '.join(b.lower() for b in DynamoBackend.list())}")
    if is_asked(FSDP):
        _refuse_fsdp()


def _refuse_fsdp() -> None:
    """Refuse FSDP 1, and what FSDP 2 cannot do with a UNet."""
    version = os.environ.get("FSDP_VERSION") or "1"
    if version != "2":
        raise InputError(f"FSDP with fsdp_version: {version} is not supported: it must be 2 (--fsdp_version 2)")
    if os.environ.get("FSDP_AUTO_WRAP_POLICY", "").upper() == "SIZE_BASED_WRAP":
        raise InputError(
            "fsdp_auto_wrap_policy: SIZE_BASED_WRAP cannot wrap a UNet: it must be TRANSFORMER_BASED_WRAP with"
            " fsdp_transformer_layer_cls_to_wrap: ResnetBlock2D,Attention"
        )
    if is_asked("FSDP_OFFLOAD_PARAMS"):
        raise InputError("fsdp_offload_params: true is not supported: it must be false")
    if is_asked("FSDP_ACTIVATION_CHECKPOINTING"):
        raise InputError("fsdp_activation_checkpointing: true is not supported: use --gradient_checkpointing instead")


def resolve_precision(config: TrainingConfig) -> tuple[str, str]:
    """The precision of a run, and what asks for it: `--mixed_precision`, else accelerate's own setting, else none."""
    if config.mixed_precision is not None:
        value, by = str(config.mixed_precision), f"--mixed_precision {config.mixed_precision}"
    else:
        value = (os.environ.get(PRECISION) or "no").lower()
        by = f"{PRECISION}={value}"
    if value not in PRECISIONS:
        raise InputError(f"{by} must be one of {', '.join(PRECISIONS)}")
    return value, by


def resolve_accumulation(config: TrainingConfig) -> int:
    """The micro-batches of an update: `--gradient_accumulation_steps`, else accelerate's own setting, else 1."""
    if config.gradient_accumulation_steps is not None:
        return config.gradient_accumulation_steps
    value = (os.environ.get(ACCUMULATION) or "1").strip()
    if not (value.isascii() and value.isdecimal() and int(value) > 0):
        raise InputError(f"{ACCUMULATION}={value} must be a positive number")
    return int(value)


def make_accelerator(config: TrainingConfig, logging_dir: Path | None) -> Accelerator:
    """The accelerator of a run, as the options and accelerate's settings say; without a logging folder no tracker."""
    refuse_unsupported()
    trackers = [] if logging_dir is None else list_trackers(config.report_to)
    accelerator = start_accelerator(
        *resolve_precision(config),
        # Where the number alone is given, accelerate's environment would win over a typed one.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=resolve_accumulation(config)),
        log_with=trackers or None,
        project_dir=None if logging_dir is None else str(logging_dir),
    )
    # Several processes would repeat each other's notices.
    if not accelerator.is_local_main_process:
        diffusers.utils.logging.set_verbosity_error()
        logging.getLogger("diffusers_progdistill").setLevel(logging.ERROR)
    set_seed(config.seed)
    return accelerator


def make_evaluation_accelerator() -> Accelerator:
    """The processes and the device of an evaluation, which is made in fp32 whatever accelerate's settings say."""
    refuse_unsupported()
    accelerator = start_accelerator("no", "fp32")
    asked = os.environ.get(PRECISION) or "no"
    if asked.lower() != "no":
        accelerator.print(f"evaluating in fp32: {PRECISION}={asked} counts in training only")
    return accelerator


def start_accelerator(precision: str, asked: str, **options: Any) -> Accelerator:
    """The accelerator of a precision, which `asked` has asked for; what accelerate refuses is one line."""
    on_cpu = not torch.accelerator.is_available() or is_asked("ACCELERATE_USE_CPU")
    if precision == "fp16" and on_cpu:
        raise InputError(f"{asked} needs a GPU: use bf16 or no on a CPU")
    # A person watches our own bar; diffusers' bar for loading two components says nothing.
    diffusers.utils.logging.disable_progress_bar()
    wait = InitProcessGroupKwargs(timeout=LONGEST_WAIT)
    try:
        # Without `cpu`, processes that torchrun starts on a CPU would each train alone, in the same folder.
        return Accelerator(cpu=on_cpu, mixed_precision=precision, kwargs_handlers=[wait], **options)
    except (ValueError, ImportError, NotImplementedError) as error:
        reason = describe_reason(error)
        raise InputError(f"accelerate does not start with {asked} and its own settings: {reason}") from error


def prepare_frozen(accelerator: Accelerator, network: torch.nn.Module) -> torch.nn.Module:
    """
    A network that is only asked, as accelerate's settings want it: in mixed precision a copy whose weights are held in
    that precision, and compiled where what is trained is. The networks of later stages find the code of the first.
    """
    dtype = FROZEN_DTYPES.get(accelerator.mixed_precision)
    network = network if dtype is None else copy.deepcopy(network).to(dtype)
    plugin = accelerator.state.dynamo_plugin
    return network if plugin.backend == DynamoBackend.NO else torch.compile(network, **plugin.to_kwargs())


def describe_hardware(accelerator: Accelerator) -> dict:
    """What a run really uses, whoever asked for it, as `chain.json` keeps it."""
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


def print_hardware(accelerator: Accelerator) -> None:
    """The first lines of a run. accelerate shards on GPUs alone, and says nothing where it does not."""
    hardware, more = describe_hardware(accelerator), ""
    if is_asked(FSDP) and not hardware["sharded"]:
        more = f"; FSDP was asked for, but accelerate does not shard on {accelerator.device.type}"
        more += " with one process" if accelerator.num_processes == 1 and accelerator.device.type != "cpu" else ""
    accelerator.print(f"running on {format_hardware(hardware)}{more}")
    if accelerator.device.type == "cpu" and hasattr(os, "getloadavg"):
        advice = advise_threads(torch.get_num_threads(), count_cores(), os.getloadavg()[0], accelerator.num_processes)
        if advice is not None:
            accelerator.print(advice)


def count_cores(root: Path = Path("/sys/fs/cgroup")) -> int:
    """The cores that this process may use: those of its affinity, and no more than a control group's quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = read_quota(root)
    return count if quota is None else max(min(count, math.ceil(quota)), 1)


def read_quota(root: Path) -> float | None:
    """Cores that a control group's quota allows, of version 2 or 1, or `None` where there is no limit."""
    for names in (["cpu.max"], ["cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"]):
        try:
            limit, period = map(float, " ".join((root / name).read_text() for name in names).split())
        except (OSError, ValueError):
            # There are none of this version, or the limit is the word "max".
            continue
        return limit / period if limit > 0 else None
    return None


def advise_threads(threads: int, cores: int, load: float, processes: int) -> str | None:
    """
    What to say, if anything, where the threads of each process would wait for other work's at a load. Threads that
    meet after every operation are as slow as the last of them: a run is then ten times slower than its share of the
    cores explains.
    """
    free = max(cores - round(load), 1)
    share = max(free // processes, 1)
    if threads <= share:
        return None
    asked = f"torch has {threads} threads{' a process' if processes > 1 else ''}"
    found = f"{free} of {cores} cores {'is' if free == 1 else 'are'} free, at a load of {load:.1f}"
    return f"{asked}, but about {found}: with OMP_NUM_THREADS={share} in the environment it is faster"
