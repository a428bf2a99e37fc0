"""The functions that people call: their options stay the caller's, and their process is as it was."""

import copy
import dataclasses
import logging
import random
import signal
import sys
import threading
import warnings
from dataclasses import FrozenInstanceError

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler
from helpers.networks import tiny_unet
from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars

from diffusers_progdistill import (
    ConversionConfig,
    DistillationConfig,
    ProgressiveDistillationPipeline,
    ProgressiveDistillationScheduler,
    TeacherConfig,
    convert,
    distill,
    save_pipeline,
    train_teacher,
)
from diffusers_progdistill.commands.evaluate import EvaluationConfig
from diffusers_progdistill.errors import InputError
from diffusers_progdistill.training.evaluate import evaluate
from diffusers_progdistill.training.run import open_run


COMMON = {"dataset_name": "digits", "report_to": "none", "train_batch_size": 4}


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """A teacher of the canonical schedule that predicts v, one that predicts x, and a stock one."""
    folder = tmp_path_factory.mktemp("teachers")
    for kind in ("v_prediction", "sample"):
        scheduler = ProgressiveDistillationScheduler(prediction_type=kind)
        save_pipeline(tiny_unet(widths=(8,)), scheduler, folder / kind)
    DDPMPipeline(tiny_unet(widths=(8,)), DDPMScheduler()).save_pretrained(folder / "stock")
    return folder


def chain_of(teacher, folder, **options):
    small = {"start_steps": 2, "end_steps": 1, "updates_per_stage": 1, "conversion_updates": 1}
    where = {"pretrained_teacher_model": str(teacher), "output_dir": str(folder)}
    return DistillationConfig(**{**COMMON, **small, **where, **options})


def calls(teachers, folder):
    """Every entry point with options that leave as much open as can be: what is called, its config, and more."""
    conversion = ConversionConfig(
        pretrained_teacher_model=str(teachers / "stock"), output_dir=str(folder / "a"), conversion_updates=1, **COMMON
    )
    trained = TeacherConfig(output_dir=str(folder / "t"), max_train_steps=1, **COMMON)
    auto = chain_of(teachers / "v_prediction", folder / "e", start_steps="auto")
    figures = {"dataset_name": "digits", "feature_extractor": "efflite0", "num_images": 4, "steps": "1"}
    figures = EvaluationConfig(output_dir=str(folder / "g"), **figures)
    return {
        "distill": (distill, chain_of(teachers / "v_prediction", folder / "d"), ()),
        "distill auto": (distill, auto, ()),
        "distill conversion": (distill, chain_of(teachers / "stock", folder / "f"), ()),
        "convert": (convert, conversion, ()),
        "train_teacher": (train_teacher, trained, ()),
        "evaluate": (evaluate, figures, ([str(teachers / "nothing")],)),
    }


NAMES = ("distill", "distill auto", "distill conversion", "convert", "train_teacher", "evaluate")


@pytest.mark.parametrize("name", NAMES)
def test_a_callers_config_is_never_changed(name, teachers, tmp_path, monkeypatch):
    monkeypatch.setattr("diffusers_progdistill.training.initial_steps.find_start", lambda *args: (2, {}))
    function, config, more = calls(teachers, tmp_path)[name]
    before = copy.deepcopy(vars(config))
    if name == "evaluate":
        with pytest.raises(InputError):
            function(config, *more)
    else:
        function(config, *more)
    assert vars(config) == before


def test_evaluating_a_run_takes_its_data_without_writing_them_down(teachers, tmp_path, monkeypatch):
    from diffusers_progdistill.training import evaluate as module

    distill(chain_of(teachers / "v_prediction", tmp_path / "run"))
    seen = []

    def stop(config, *args):
        seen.append(config.dataset_name)
        raise InputError("far enough")

    monkeypatch.setattr(module, "load_metrics", stop)
    config = EvaluationConfig(num_images=4, steps="1")
    before = dict(vars(config))
    with pytest.raises(InputError, match="far enough"):
        evaluate(config, [str(tmp_path / "run")])
    assert seen == ["digits"] and vars(config) == before


def test_one_config_for_two_teachers_gives_what_fresh_ones_give(teachers, tmp_path):
    """The x-predicting teacher makes students of x, whatever was settled for the one before."""
    shared = chain_of("a teacher", "a folder")
    made = {}
    for kind in ("v_prediction", "sample"):
        shared.pretrained_teacher_model, shared.output_dir = str(teachers / kind), str(tmp_path / f"shared-{kind}")
        distill(shared)
        distill(chain_of(teachers / kind, tmp_path / f"fresh-{kind}"))
        for way in ("shared", "fresh"):
            made[way, kind] = ProgressiveDistillationPipeline.from_pretrained(tmp_path / f"{way}-{kind}/steps-1")
        a, b = (made[way, kind].unet.state_dict() for way in ("shared", "fresh"))
        assert all(torch.equal(a[k], b[k]) for k in a)
        assert made["shared", kind].scheduler.config.prediction_type == kind


def state_of_process():
    """What a run might leave behind, in values that can be compared."""
    own = logging.getLogger("diffusers_progdistill")
    return {
        "torch": (torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()),
        "deterministic": (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic),
        "matmul": (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32),
        "random": (random.getstate(), torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()),
        "loggers": (
            own.level,
            list(own.handlers),
            list(logging.root.handlers),
            diffusers.utils.logging.get_verbosity(),
        ),
        "bars": (diffusers.utils.logging.is_progress_bar_enabled(), are_progress_bars_disabled()),
        "signals": (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)),
        "hooks": (sys.excepthook, sys.stdout, sys.stderr),
    }


def filters():
    return [f for f in warnings.filters if getattr(f[3], "pattern", None) != r"PIL\."]


@pytest.mark.parametrize("name", ["distill", "convert", "train_teacher", "evaluate"])
def test_the_process_is_as_it_was(name, teachers, tmp_path):
    function, config, more = calls(teachers, tmp_path)[name]
    diffusers.utils.logging.enable_progress_bar(), enable_progress_bars()
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    torch.use_deterministic_algorithms(True)
    try:
        before, filters_before = state_of_process(), filters()
        if name == "evaluate":
            with pytest.raises(InputError):
                function(config, *more)
        else:
            function(config, *more)
        after = state_of_process()
        assert [k for k in before if before[k] != after[k]] == [] and filters() == filters_before
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("name", ["distill", "convert", "train_teacher"])
def test_in_another_thread(name, teachers, tmp_path):
    """As web servers and notebooks do it: signals are the main thread's, everything else is the same."""
    function, config, more = calls(teachers, tmp_path)[name]
    made, handler = [], signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=lambda: made.append(function(config, *more)))
    thread.start(), thread.join()
    assert made and signal.getsignal(signal.SIGTERM) is handler
    # The folder's lock is free again.
    assert function(config, *more) == made[0]


def test_a_failed_run_leaves_its_folder_free(teachers, tmp_path, monkeypatch):
    from diffusers_progdistill.training import student

    def fail(*args):
        raise FloatingPointError("too many updates")

    config = chain_of(teachers / "v_prediction", tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(student.StageTrainer, "train", fail)
        with pytest.raises(FloatingPointError):
            distill(config)
    assert (distill(config) / "steps-1/model_index.json").exists()


def test_nothing_sets_the_options_of_a_run(teachers, tmp_path):
    config = chain_of(teachers / "v_prediction", tmp_path / "run")
    run = open_run(config)
    assert run.config.prediction_type == "v_prediction" and run.config.mixed_precision == "no"
    with pytest.raises(FrozenInstanceError, match="start_steps"):
        run.config.start_steps = 4
    assert dataclasses.replace(run.config, start_steps=4).start_steps == 4 and config.prediction_type is None
