"""fp16's search for a loss scale is no divergence, a real one still ends the run, and the scale is kept."""

import json

import pytest
import torch
from helpers import stages
from helpers.networks import tiny_unet
from helpers.systems import chain_config, read_record, set_environment

import diffusers_progdistill.training.run as run_module
from diffusers_progdistill import ProgressiveDistillationScheduler
from diffusers_progdistill.objectives.denoising import DenoisingObjective
from diffusers_progdistill.objectives.stage import Stage
from diffusers_progdistill.training.chain import distill
from diffusers_progdistill.training.config import DistillationConfig
from diffusers_progdistill.training.health import Health
from diffusers_progdistill.training.isolation import isolated
from diffusers_progdistill.training.launcher import make_accelerator
from diffusers_progdistill.training.optimizer import clip_gradient, is_searching
from diffusers_progdistill.training.task import StageTask


FIRST_SCALE = 2.0**16


def with_scaler(accelerator, scale=FIRST_SCALE, growth_interval=2000):
    """accelerate scales on GPUs alone; torch's scaler does it on a CPU too."""
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=growth_interval)
    accelerator.native_amp, accelerator.state._mixed_precision = True, "fp16"
    return accelerator


class Overflowing(DenoisingObjective):
    """A gradient that overflows above a scale, as fp16's do; the loss is finite, or not where `broken`."""

    def __init__(self, accelerator, largest_scale: float, broken=lambda update: False):
        super().__init__(stages.make_denoiser(tiny_unet(widths=(8,))), "truncated_snr")
        self.scaler, self.largest, self.broken, self.update = accelerator.scaler, largest_scale, broken, 0

    def compute_losses(self, network, examples):
        self.update += 1
        (loss,) = super().compute_losses(network, examples).values()
        if self.scaler.get_scale() > self.largest:
            loss.register_hook(lambda gradient: gradient * float("inf"))
        return {"loss": loss * float("nan") if self.broken(self.update) else loss}


@pytest.fixture
def train(monkeypatch):
    """Train a stage in fp16, as far as a CPU can: its result, and the scale it ends with."""
    set_environment(monkeypatch, {})

    def train(updates, largest_scale, broken=lambda update: False, **scaler):
        with isolated():
            accelerator = with_scaler(make_accelerator(DistillationConfig(), None), **scaler)
            run = stages.make_run(accelerator, train_batch_size=2, logging_steps=1)
            objective = Overflowing(accelerator, largest_scale, broken)
            task = StageTask(Stage("teacher", updates, 3), objective, ProgressiveDistillationScheduler())
            return stages.train(run, task), accelerator.scaler.get_scale()

    return train


def test_a_scale_is_searched_as_long_as_it_takes(train):
    result, scale = train(20, largest_scale=4.0)
    # From 2^16 to 2^2: fourteen in a row, seventy percent of the stage.
    assert scale == 4.0 and result.skipped == 14 and result.loss_scale["scale"] == 4.0
    assert all(torch.isfinite(p).all() for p in result.network.parameters())


@pytest.mark.parametrize("interval, skipped", [(3, 4), (5, 2)])
def test_a_scale_that_grows_too_far_is_searched_again(train, interval, skipped):
    result, _ = train(16, largest_scale=64.0, scale=64.0, growth_interval=interval)
    # So many good updates, then one too many.
    assert result.skipped == skipped


def test_gradients_that_no_scale_mends_end_the_run(train):
    with pytest.raises(FloatingPointError, match="in a row"):
        train(60, largest_scale=0.0)


def test_losses_that_are_not_finite_end_the_run_while_the_scale_falls(train):
    with pytest.raises(FloatingPointError, match="update 1: 1 updates"):
        train(50, largest_scale=FIRST_SCALE, broken=lambda update: True)


@pytest.mark.parametrize(
    "loss, norm, scale, counts",
    [
        (1.0, 1.0, 2.0, (0, 0)),
        (1.0, float("inf"), 2.0, (0, 1)),
        (1.0, float("nan"), FIRST_SCALE, (0, 1)),
        (1.0, float("inf"), 1.0, (1, 0)),
        (float("nan"), float("nan"), FIRST_SCALE, (1, 0)),
        (1.0, float("inf"), None, (1, 0)),
    ],
)
def test_which_of_both_an_update_is(loss, norm, scale, counts, monkeypatch):
    set_environment(monkeypatch, {})
    with isolated():
        accelerator = make_accelerator(DistillationConfig(), None)
        if scale is not None:
            with_scaler(accelerator, scale)
            assert is_searching(accelerator.scaler, accelerator.device).item() == (scale > 1)
        health = Health(accelerator, 1000)
        skip = health.judge({"loss": torch.tensor(loss)}, [torch.tensor(norm)])
        assert skip.item() == sum(counts)
        assert (health.skipped.item(), health.searched.item()) == counts
        assert health.read("teacher", 1)[1] == sum(counts)


@pytest.mark.parametrize(
    "made, norm", [(None, 0.0), (2.5, 2.5), (torch.tensor(3.0), 3.0), (float("inf"), float("inf"))]
)
def test_whatever_clipping_returns_is_a_number_on_the_device(made, norm):
    class Backend:
        device = torch.device("cpu")

        def clip_grad_norm_(self, parameters, max_norm):
            return made

    found = clip_gradient(Backend(), [], 1.0)
    assert isinstance(found, torch.Tensor) and found.shape == () and found.item() == norm


def test_the_scale_is_kept_from_stage_to_stage_and_by_a_resumed_chain(teacher_folder, tmp_path, monkeypatch):
    set_environment(monkeypatch, {})
    make = run_module.make_accelerator
    # The scale doubles every third update: where a stage begins can be seen.
    monkeypatch.setattr(run_module, "make_accelerator", lambda *args: with_scaler(make(*args), 8.0, growth_interval=3))
    options = {"start_steps": 16, "end_steps": 4, "updates_per_stage": 4}
    distill(chain_config(teacher_folder, tmp_path / "whole", **options))
    stages = read_record(tmp_path / "whole")["stages"]
    assert [s["loss_scale"]["scale"] for s in stages] == [16.0, 32.0]
    # One that is stopped between the stages goes on with what its record says.
    record = read_record(tmp_path / "whole")
    record["stages"], record["finished"] = record["stages"][:1], False
    (tmp_path / "whole" / "chain.json").write_text(json.dumps(record))
    distill(chain_config(teacher_folder, tmp_path / "whole", **options))
    again = read_record(tmp_path / "whole")["stages"]
    assert [s["loss_scale"] for s in again] == [s["loss_scale"] for s in stages]
    assert [s["loss"] for s in again] == [s["loss"] for s in stages]
