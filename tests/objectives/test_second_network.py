"""An objective with a network, an optimizer, an average and a loss of its own: the loop keeps them without knowing."""

import copy
import json
from dataclasses import replace

import torch
from diffusers.training_utils import EMAModel
from helpers.networks import tiny_unet
from helpers.stages import distillation_task, make_run

from diffusers_progdistill.errors import StoppedBySignal
from diffusers_progdistill.objectives.distillation import DistillationObjective
from diffusers_progdistill.objectives.stage import Stage
from diffusers_progdistill.training.checkpointing import Checkpoints
from diffusers_progdistill.training.loop import StageTrainer
from diffusers_progdistill.training.monitor import Monitor


class CriticObjective(DistillationObjective):
    """A second network learns the student's targets too; its average enters nothing."""

    loss_names = ("loss", "critic")

    def add_critic(self):
        critic = tiny_unet()
        self.networks = {"critic": critic}
        self.optimizers = {"critic": torch.optim.AdamW(critic.parameters(), lr=1e-3, fused=True)}
        self.averages = {"critic": EMAModel(critic.parameters(), decay=0.9)}
        return self

    def compute_losses(self, network, examples):
        guess = self.networks["critic"](examples.z, examples.time, return_dict=False)[0]
        loss = super().compute_losses(network, examples)["loss"]
        return {"loss": loss, "critic": (guess - examples.target).square().mean()}

    def after_update(self, update):
        self.averages["critic"].step(self.networks["critic"].parameters())
        if update == self.stop_after:
            raise StoppedBySignal(15)

    stop_after = None


def train_with_critic(folder, stop_after=None):
    """A stage of 6 updates that writes a checkpoint after every second; returns its objective and result."""
    torch.manual_seed(0)
    folder.mkdir(exist_ok=True)
    run = make_run(train_batch_size=8, learning_rate=1e-3, checkpointing_steps=2, logging_steps=2, report_to="none")
    task = distillation_task(Stage("steps-4", 6, 5, num_steps=4))
    own = task.objective
    objective = CriticObjective(own.student, own.teacher, own.grid, own.loss).add_critic()
    objective.stop_after = stop_after
    monitor = Monitor(run.accelerator, folder, task.stage.forward_passes)
    monitor.start(task.stage, 1, 1, run.global_batch)
    checkpoints = Checkpoints(run.accelerator, folder, task.stage.name)
    trainer = StageTrainer(run, replace(task, objective=objective), monitor, checkpoints)
    return objective, trainer.train()


def state_of(objective, result):
    """All that was trained, by name."""
    average = {f"average {k}": p for k, p in enumerate(objective.averages["critic"].shadow_params)}
    critic = {f"critic {k}": p for k, p in objective.networks["critic"].state_dict().items()}
    return {**result.network.state_dict(), **critic, **average}


def test_all_of_it_is_trained_and_goes_on_from_a_checkpoint(tmp_path):
    whole = state_of(*train_with_critic(tmp_path / "whole"))
    fresh = tiny_unet().state_dict()
    assert not all(torch.equal(whole[f"critic {k}"], fresh[k]) for k in fresh)
    try:
        train_with_critic(tmp_path / "stopped", stop_after=5)
    except StoppedBySignal:
        pass
    checkpoint = tmp_path / "stopped" / "checkpoints" / "steps-4-00000004"
    names = {path.name for path in checkpoint.iterdir()}
    assert {"critic.safetensors", "critic.optimizer.safetensors", "critic.average.safetensors"} <= names
    resumed = state_of(*train_with_critic(tmp_path / "stopped"))
    assert whole.keys() == resumed.keys() and all(torch.equal(whole[k], resumed[k]) for k in whole)


def test_the_loss_that_is_logged_is_the_sum(tmp_path):
    _, result = train_with_critic(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] == result.loss
    task = distillation_task(Stage("steps-4", 6, 5, num_steps=4))
    run = make_run(train_batch_size=8, learning_rate=1e-3, logging_steps=2, report_to="none")
    monitor = Monitor(run.accelerator, None, 1)
    monitor.start(task.stage, 1, 1, run.global_batch)
    alone = StageTrainer(run, copy.copy(task), monitor).train()
    # The critic's part is on top of the student's.
    assert result.loss > alone.loss
