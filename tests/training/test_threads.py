"""Threads by the cores that are free: what is said at given loads, quotas and processes."""

import os
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator

from diffusers_progdistill.training import launcher
from diffusers_progdistill.training.launcher import advise_threads, count_cores, print_hardware, read_quota


@pytest.mark.parametrize(
    "asked, cores, load, processes, share",
    [
        (2, 2, 0.1, 1, None),
        (2, 2, 0.6, 1, 1),
        (2, 2, 11.0, 1, 1),
        (1, 2, 11.0, 1, None),
        (16, 16, 3.4, 1, 13),
        (8, 16, 3.4, 1, None),
        (64, 4, 0.0, 1, 4),
        (1, 2, 5.0, 2, None),
        (8, 16, 0.0, 2, None),
        (8, 16, 8.0, 2, 4),
        (1, 1, 0.0, 4, None),
    ],
)
def test_the_variable_is_named_where_cores_are_missing(asked, cores, load, processes, share):
    line = advise_threads(asked, cores, load, processes)
    assert (line is None) == (share is None)
    if line:
        assert f"OMP_NUM_THREADS={share} " in line and f"torch has {asked} threads" in line and "\n" not in line


@pytest.mark.parametrize(
    "files, cores",
    [
        ({}, None),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "nonsense"}, None),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
    ],
)
def test_quotas_of_control_groups(files, cores, tmp_path):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert read_quota(tmp_path) == cores
    whole = count_cores(tmp_path / "nowhere")
    assert count_cores(tmp_path) == (whole if cores is None else min(whole, max(round(cores + 0.49), 1)))


@pytest.mark.parametrize("load, said", [(0.0, False), (3.0, True)])
def test_a_training_says_it_once(load, said, monkeypatch, capsys):
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0), raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(launcher, "count_cores", lambda: 4)
    print_hardware(Accelerator(cpu=True))
    first, *advice = capsys.readouterr().out.splitlines()
    assert first.startswith("running on") and len(advice) == said
    assert all("OMP_NUM_THREADS=1" in line for line in advice)


def test_a_gpu_does_not_wait_for_threads(monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: pytest.fail("nobody asks"), raising=False)
    monkeypatch.setattr(launcher, "describe_hardware", lambda _: {"sharded": False})
    monkeypatch.setattr(launcher, "format_hardware", lambda _: "a GPU")
    print_hardware(SimpleNamespace(device=torch.device("cuda"), num_processes=1, print=print))
