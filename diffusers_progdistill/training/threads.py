"""Threads that torch takes on a CPU, and the cores that are free for them."""

import math
import os
from pathlib import Path

import torch
from accelerate import Accelerator


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


def advise(threads: int, cores: int, load: float, processes: int = 1) -> str | None:
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


def tell_threads(accelerator: Accelerator):
    """Print the line of [`advise`] at the start of a training on a CPU; nothing else changes."""
    if accelerator.device.type == "cpu" and hasattr(os, "getloadavg"):
        line = advise(torch.get_num_threads(), count_cores(), os.getloadavg()[0], accelerator.num_processes)
        if line is not None:
            accelerator.print(line)
