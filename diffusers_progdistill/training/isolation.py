"""
Runs that leave no trace in their process. accelerate keeps what the first `Accelerator` was made with for the whole
process, and writes to its environment; a notebook that trains in fp32 could not train in bf16 after that.
"""

import contextlib
import os

import diffusers
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState


STATES = (AcceleratorState, PartialState, GradientState)
# What accelerate sets for the process that it runs in.
PREFIXES = ("ACCELERATE_", "FSDP_", "MASTER_", "XLA_")
NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


def _variables() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k.startswith(PREFIXES) or k in NAMES}


def _restore_variables(before: dict[str, str]):
    for name in _variables().keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@contextlib.contextmanager
def isolated():
    """
    Give a run accelerate's states afresh, and put back what was there before it: the states of the caller's own
    `Accelerator`, the environment, the precision of fp32 products and diffusers' messages. What `accelerate launch`
    set in the environment counts in every run. Also a decorator.
    """
    states, variables = [dict(state._shared_state) for state in STATES], _variables()
    precision, verbosity = torch.get_float32_matmul_precision(), diffusers.utils.logging.get_verbosity()
    has_bar = diffusers.utils.logging.is_progress_bar_enabled()
    for state in STATES:
        state._shared_state.clear()
    try:
        yield
    finally:
        for state, before in zip(STATES, states):
            state._shared_state.clear()
            state._shared_state.update(before)
        _restore_variables(variables)
        torch.set_float32_matmul_precision(precision)
        diffusers.utils.logging.set_verbosity(verbosity)
        if has_bar:
            diffusers.utils.logging.enable_progress_bar()
