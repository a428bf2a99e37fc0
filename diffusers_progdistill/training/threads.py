"""Threads that torch takes on a CPU, and the cores that are free for them."""

import math
import os
from pathlib import Path

import torch


def cores_given(root: Path = Path("/sys/fs/cgroup")) -> int:
    """
    The cores that this process may use: those of its affinity, and no more than a control group's quota.

    Args:
        root (`Path`, *optional*, defaults to `/sys/fs/cgroup`): Where control groups are mounted.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = read_quota(root)
    return count if quota is None else max(min(count, math.ceil(quota)), 1)


def read_quota(root: Path) -> float | None:
    """Cores that a control group's quota allows, of version 2 or 1, or `None` where there is no limit."""
    try:
        limit, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            limit, period = ((root / "cpu" / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        except OSError:
            return None
    try:
        return float(limit) / float(period) if float(limit) > 0 else None
    except (ValueError, ZeroDivisionError):
        return None  # "max"


def advice(threads: int, cores: int, load: float, processes: int = 1) -> str | None:
    """
    What to say where threads would wait for other work's. Threads that meet after every operation are as slow as the
    last of them: a run is then ten times slower than its share of the cores explains.

    Args:
        threads (`int`): Threads of torch in a process.
        cores (`int`): Cores that the processes may use together.
        load (`float`): How many others were at work lately.
        processes (`int`, *optional*, defaults to 1): Processes of the run.

    Returns:
        `str` or `None`: One line, or nothing if there are cores enough.
    """
    free = max(cores - round(load), 1)
    share = max(free // processes, 1)
    if threads <= share:
        return None
    asked = f"torch has {threads} threads{' a process' if processes > 1 else ''}"
    found = f"{free} of {cores} cores {'is' if free == 1 else 'are'} free, at a load of {load:.1f}"
    return f"{asked}, but about {found}: with OMP_NUM_THREADS={share} in the environment it is faster"


def tell_threads(accelerator):
    """Print the line of [`advice`] at the start of a training on a CPU; nothing else changes."""
    if accelerator.device.type != "cpu" or not hasattr(os, "getloadavg"):
        return
    line = advice(torch.get_num_threads(), cores_given(), os.getloadavg()[0], accelerator.num_processes)
    if line is not None:
        accelerator.print(line)
