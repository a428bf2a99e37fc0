"""Trackers with every rule that some service has, and services that fail."""

import math
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
from accelerate import tracking
from accelerate.tracking import GeneralTracker
from accelerate.utils import LoggerType
from helpers.processes import chain_options, logged, weights

from diffusers_progdistill.commands.main import main
from diffusers_progdistill.errors import InputError
from diffusers_progdistill.training.config import DistillationConfig
from diffusers_progdistill.training.trackers import (
    MOST_FAILURES,
    Rows,
    list_trackers,
    select_numbers,
    simplify_settings,
)


class StrictTracker(GeneralTracker):
    """Takes what every tracker of accelerate takes, and refuses what one of them refuses."""

    name = "strict"
    requires_logging_directory = False
    rows, settings, finished = [], {}, 0
    failing: set = set()

    def __init__(self, run_name):
        super().__init__()
        self.step = -1
        self.fail("init")

    @classmethod
    def fail(cls, what):
        if what in cls.failing:
            raise ConnectionError(f"{what}\ndoes not\nanswer")

    @property
    def tracker(self):
        return None

    def start(self):
        self.fail("start")

    def store_init_configuration(self, values):
        for name, value in values.items():
            assert type(name) is str and type(value) in (str, int, float, bool), (name, value)
            assert type(value) is not float or math.isfinite(value)
            assert "token" not in name and len(str(value)) <= 500
        type(self).settings = values

    def log(self, values, step=None, **kwargs):
        self.fail("log")
        assert type(step) is int and step >= self.step, (step, self.step)
        self.step = step
        for name, value in values.items():
            assert type(name) is str and set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-./ "), name
            assert type(value) in (int, float) and math.isfinite(value), (name, value)
        self.rows.append((step, values))

    def finish(self):
        self.fail("finish")
        type(self).finished += 1


@pytest.fixture
def strict(monkeypatch):
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "strict", StrictTracker)
    for name, value in {"rows": [], "settings": {}, "finished": 0, "failing": set()}.items():
        monkeypatch.setattr(StrictTracker, name, value)
    return StrictTracker


def test_a_chain_and_its_resumption(strict, teacher_folder, whole_chain, tmp_path, monkeypatch):
    """Fractional costs of updates, two stages, a stop in the middle of the second, two trackers at once."""
    options = chain_options(
        teacher_folder, tmp_path / "run", reuse_targets=2, report_to="strict, TensorBoard", logging_steps=1
    )
    steps = []
    real = Rows.add

    def stop(rows, values, step):
        real(rows, values, step)
        steps.append(step)
        if len(steps) == 12:
            os.kill(os.getpid(), 15)

    monkeypatch.setattr(Rows, "add", stop)
    assert main(["distill", *options]) == 143
    assert main(["distill", *options]) == 0
    rows = [(step, {k: v for k, v in values.items() if k.endswith("loss")}) for step, values in strict.rows]
    # The stage of 1 step has twice the updates, and its rows follow those of the stage before.
    assert [step for step, _ in rows] == list(range(1, 21))
    assert strict.settings["learning_rate"] == 1e-3 and strict.finished == 1
    assert list((tmp_path / "run" / "logs").rglob("events*"))
    assert len(logged(tmp_path / "run")) == 20


@pytest.mark.parametrize("failing", ["log", "finish"])
def test_a_service_that_fails_costs_one_notice(failing, strict, teacher_folder, whole_chain, tmp_path, caplog):
    strict.failing = {failing}
    options = chain_options(teacher_folder, tmp_path / "run", report_to="strict")
    assert main(["distill", *options]) == 0
    notices = [r.getMessage() for r in caplog.records if "the tracker strict" in r.getMessage()]
    assert len(notices) == 1 and "\n" not in notices[0] and "ConnectionError" in notices[0]
    assert weights(tmp_path / "run") == weights(whole_chain) and logged(tmp_path / "run") == logged(whole_chain)


@pytest.mark.parametrize("failing", ["init", "start"])
def test_a_service_that_does_not_start_is_refused(failing, strict, teacher_folder, tmp_path, capsys):
    strict.failing = {failing}
    assert main(["distill", *chain_options(teacher_folder, tmp_path / "run", report_to="strict")]) == 2
    error = capsys.readouterr().err
    assert "--report_to strict does not start: ConnectionError" in error and error.count("\n") == 1


def test_rows(strict, caplog):
    class Accelerator:
        trackers = [StrictTracker("x")]

    rows = Rows(Accelerator)
    for step in (3, 2.0, torch.tensor(5), 4):
        rows.add({"a/loss": torch.tensor(0.5), "b": None, "c": float("nan"), "d": float("inf"), "e": 2}, step)
    assert [step for step, _ in strict.rows] == [3, 3, 5, 5]
    assert all(values == {"a/loss": 0.5, "e": 2} for _, values in strict.rows)
    strict.failing = {"log"}
    for step in range(10, 20):
        rows.add({"x": 1}, step)
    strict.failing = set()
    rows.add({"x": 1}, 20)
    assert rows.failures == {"strict": MOST_FAILURES} and len(strict.rows) == 4 and len(caplog.records) == 1


def test_plain_values():
    settings = {"a": None, "b": True, "l": [1, (2, 3)], "t": torch.tensor(1.0), "hub_token": "x", "n": float("nan")}
    plain = {"a": "None", "b": True, "l": "[1, (2, 3)]", "t": "tensor(1.)", "n": "nan"}
    assert simplify_settings(settings) == plain
    assert select_numbers({"a": True, "b": "x", "c": torch.tensor(2)}) == {"c": 2}


@pytest.fixture
def installed(monkeypatch):
    """A machine with these two packages."""
    found = [LoggerType.MLFLOW, LoggerType.TENSORBOARD]
    monkeypatch.setattr(tracking, "get_available_trackers", lambda: found)


@pytest.mark.parametrize(
    "given, names",
    [
        ("none", []),
        ("None", []),
        ("no", []),
        ("off", []),
        ("tensorboard", ["tensorboard"]),
        ("mlflow,tensorboard", ["mlflow", "tensorboard"]),
        ("MLflow, mlflow", ["mlflow"]),
        ("all", ["mlflow", "tensorboard"]),
        ("all,tensorboard", ["tensorboard", "mlflow"]),
        (["mlflow", "tensorboard"], ["mlflow", "tensorboard"]),
        ("strict,mlflow", ["strict", "mlflow"]),
    ],
)
def test_names(given, names, installed, strict):
    assert list_trackers(given) == names


@pytest.mark.parametrize("name", sorted({*LoggerType.list()} - {"all", "tensorboard", "mlflow"}))
def test_trackers_that_are_not_installed(name, installed):
    config = DistillationConfig(dataset_name="digits", pretrained_teacher_model="t", report_to=f"{name},tensorboard")
    with pytest.raises(InputError, match=f"--report_to {name} is not installed: `pip install {name}`"):
        config.check()


@pytest.mark.parametrize("given", ["paper", "", "tensorboard,", "none,mlflow", "tensorboard mlflow"])
def test_names_that_are_none(given, installed):
    with pytest.raises(InputError, match="--report_to"):
        list_trackers(given)


def test_a_folder_of_logs_is_no_package(tmp_path):
    """An earlier run has left one called wandb, where Python looks for packages."""
    (tmp_path / "wandb").mkdir()
    code = "from diffusers_progdistill.training.trackers import list_trackers; print(list_trackers('all'))"
    said = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ("wandb" in said.stdout) == (find_spec("wandb") is not None)


def test_no_token_reaches_a_service(installed):
    config = DistillationConfig(dataset_name="digits", pretrained_teacher_model="t", hub_token="hf_x")
    config.check()
    config.report_to = "tensorboard,mlflow"
    with pytest.raises(InputError, match="--hub_token with --report_to mlflow"):
        config.check()


@pytest.mark.slow
def test_wandb_itself(teacher_folder, tmp_path, monkeypatch, caplog):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    options = chain_options(teacher_folder, tmp_path / "run", report_to="wandb", reuse_targets=2)
    assert main(["distill", *options]) == 0
    assert "the tracker wandb" not in caplog.text and list(tmp_path.rglob("*.wandb"))
