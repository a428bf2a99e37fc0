"""
Runs that leave no trace in their process. accelerate keeps what the first `Accelerator` was made with for the whole
process, and writes to its environment; a notebook that trains in fp32 could not train in bf16 after that.
"""

import atexit
import contextlib
import logging
import os
import random
import sys
import warnings

import diffusers
import huggingface_hub.utils
import numpy as np
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState


STATES = (AcceleratorState, PartialState, GradientState)
# What accelerate sets for the process that it runs in.
PREFIXES = ("ACCELERATE_", "FSDP_", "MASTER_", "XLA_")
NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


@atexit.register
def leave_process_group():
    """Part from the other processes at the very end: runs in turn share one group, whose addresses serve only once."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _variables() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k.startswith(PREFIXES) or k in NAMES}


def _restore_variables(before: dict[str, str]):
    for name in _variables().keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


def _settings() -> list[tuple]:
    """What the process is set to, as pairs of a function and what gives it back."""
    cudnn, own = torch.backends.cudnn, logging.getLogger("diffusers_progdistill")
    flags = {name: getattr(cudnn, name) for name in ("deterministic", "benchmark", "allow_tf32")}
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    strict = torch.are_deterministic_algorithms_enabled()
    return [
        (torch.set_float32_matmul_precision, torch.get_float32_matmul_precision()),
        (torch.set_num_threads, torch.get_num_threads()),
        (torch.set_default_dtype, torch.get_default_dtype()),
        (torch.set_grad_enabled, torch.is_grad_enabled()),
        (lambda on: torch.use_deterministic_algorithms(on, warn_only=warn_only), strict),
        (lambda values: [setattr(cudnn, k, v) for k, v in values.items()], flags),
        (random.setstate, random.getstate()),
        (np.random.set_state, np.random.get_state()),
        (own.setLevel, own.level),
        (diffusers.utils.logging.set_verbosity, diffusers.utils.logging.get_verbosity()),
        (_set_bars, _bars()),
    ]


def _bars() -> list[bool]:
    """Whether the bars of diffusers, of the Hub's client and of datasets are shown; a run has its own."""
    datasets = sys.modules.get("datasets")
    return [
        diffusers.utils.logging.is_progress_bar_enabled(),
        not huggingface_hub.utils.are_progress_bars_disabled(),
        datasets is None or not datasets.are_progress_bars_disabled(),
    ]


def _set_bars(shown: list[bool]):
    if shown[0]:
        diffusers.utils.logging.enable_progress_bar()
    with warnings.catch_warnings():
        # Who set them by the environment is told that this changes nothing.
        warnings.simplefilter("ignore")
        if shown[1]:
            huggingface_hub.utils.enable_progress_bars()
        if shown[2] and "datasets" in sys.modules:
            sys.modules["datasets"].enable_progress_bars()


@contextlib.contextmanager
def isolated():
    """
    Give a run accelerate's states afresh, and put back what was there before it: the states of the caller's own
    `Accelerator`, the environment, the random generators, torch's flags, the filters of warnings, and what is shown of
    messages and bars. What `accelerate launch` set in the environment counts in every run. Also a decorator.
    """
    states, variables = [dict(state._shared_state) for state in STATES], _variables()
    settings = _settings()
    for state in STATES:
        state._shared_state.clear()
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            yield
    finally:
        for state, before in zip(STATES, states):
            state._shared_state.clear()
            state._shared_state.update(before)
        _restore_variables(variables)
        for restore, before in settings:
            restore(before)
