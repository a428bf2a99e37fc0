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
from collections.abc import Iterator

import diffusers
import huggingface_hub.utils
import numpy as np
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState


# accelerate has no public way to set these aside and take them up again; the caller's own `Accelerator` lives there.
STATES = (AcceleratorState, PartialState, GradientState)


@atexit.register
def leave_process_group() -> None:
    """Part from the other processes at the very end: runs in turn share one group, whose addresses serve only once."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def restore_bars(hub: bool, of_datasets: bool) -> None:
    """Show the bars of the Hub's client and of datasets again, which a run hides since it has its own."""
    with warnings.catch_warnings():
        # Who set them by the environment is told that this changes nothing.
        warnings.simplefilter("ignore")
        if hub:
            huggingface_hub.utils.enable_progress_bars()
        if of_datasets and "datasets" in sys.modules:
            sys.modules["datasets"].enable_progress_bars()


def restore_settings_after(stack: contextlib.ExitStack) -> None:
    """Have what the process is set to by now restored at the end."""
    logger, messages = logging.getLogger("diffusers_progdistill"), diffusers.utils.logging
    datasets = sys.modules.get("datasets")
    stack.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
    stack.callback(torch.use_deterministic_algorithms, torch.are_deterministic_algorithms_enabled())
    stack.callback(random.setstate, random.getstate())
    stack.callback(np.random.set_state, np.random.get_state())
    stack.callback(logger.setLevel, logger.level)
    stack.callback(messages.set_verbosity, messages.get_verbosity())
    if messages.is_progress_bar_enabled():
        stack.callback(messages.enable_progress_bar)
    hub = not huggingface_hub.utils.are_progress_bars_disabled()
    stack.callback(restore_bars, hub, datasets is None or not datasets.are_progress_bars_disabled())


@contextlib.contextmanager
def isolated() -> Iterator[None]:
    """
    Give a run accelerate's states afresh, and put back what was there before it: the states of the caller's own
    `Accelerator`, the environment, the random generators, torch's settings, the filters of warnings, and what is shown
    of messages and bars. What `accelerate launch` set in the environment counts in every run. Also a decorator.
    """
    with contextlib.ExitStack() as stack:
        restore_settings_after(stack)
        for table in (os.environ, *(state._shared_state for state in STATES)):
            # What comes last is called first.
            stack.callback(table.update, dict(table))
            stack.callback(table.clear)
        for state in STATES:
            state._shared_state.clear()
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            yield
