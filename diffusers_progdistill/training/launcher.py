"""
What `accelerate config`, `accelerate launch` and its environment ask of a run, where the command line says nothing;
and what they may ask that this package does not do.
"""

import os

from accelerate.utils import DynamoBackend, str_to_bool

from ..errors import InputError
from .config import TrainingConfig


PRECISIONS = ("no", "fp16", "bf16")
PRECISION, ACCUMULATION = "ACCELERATE_MIXED_PRECISION", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS"
DYNAMO, FSDP = "ACCELERATE_DYNAMO_BACKEND", "ACCELERATE_USE_FSDP"
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


def refuse_unsupported():
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


def _refuse_fsdp():
    """Refuse FSDP 1, and what FSDP 2 cannot do with a UNet."""
    version = os.environ.get("FSDP_VERSION") or "1"
    if version != "2":
        raise InputError(f"FSDP with fsdp_version: {version} is not supported: it must be 2 (--fsdp_version 2)")
    policy = os.environ.get("FSDP_AUTO_WRAP_POLICY") or "NO_WRAP"
    if policy.upper() == "SIZE_BASED_WRAP":
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
