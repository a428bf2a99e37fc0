"""Updates that are not finite leave weights, moments and averages as they are, are counted, and end hopeless runs."""

import json

import pytest
import torch
from accelerate import Accelerator
from helpers.chains import chain, same, weights

from diffusers_progdistill.training.chain import distill
from diffusers_progdistill.training.config import DistillationConfig
from diffusers_progdistill.training.health import Health
from diffusers_progdistill.training.optimizer import GuardedAdamW, make_optimizer
from diffusers_progdistill.training.stages import DistillationObjective


def poison(monkeypatch, updates, value=float("nan")):
    """Make the loss of some updates of each stage not finite; the counter starts again with each stage."""
    values = updates if isinstance(updates, dict) else dict.fromkeys(updates, value)
    call, made = DistillationObjective.loss, DistillationObjective.__init__

    def init(self, *args, **kwargs):
        self.count = 0
        made(self, *args, **kwargs)

    def poisoned(self, model, examples):
        self.count += 1
        loss = call(self, model, examples)
        return loss * values.get(self.count, 1)

    monkeypatch.setattr(DistillationObjective, "__init__", init)
    monkeypatch.setattr(DistillationObjective, "loss", poisoned)


def test_a_bad_update_is_skipped_and_counted(teacher_folder, tmp_path, monkeypatch):
    poison(monkeypatch, {7: float("nan"), 60: float("inf")})
    options = {"updates_per_stage": 200, "train_batch_size": 2, "use_ema": True}
    distill(chain(teacher_folder, tmp_path, end_steps=4, **options))
    stage = json.loads((tmp_path / "chain.json").read_text())["stages"][0]
    assert stage["updates"] == 200 and stage["skipped_updates"] == 2
    assert all(torch.isfinite(w).all() for w in weights(tmp_path / "steps-4").values())
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all(line["loss"] is not None and line["loss"] < 2 for line in lines)
    assert [line.get("skipped_updates", 0) for line in lines][-1] == 2


def test_one_percent_is_too_many(teacher_folder, tmp_path, monkeypatch):
    poison(monkeypatch, {5, 9, 13})
    with pytest.raises(FloatingPointError, match="stage steps-4, update 14: 3 updates"):
        distill(chain(teacher_folder, tmp_path, end_steps=4, updates_per_stage=200))


def test_more_than_ten_in_a_row_are_too_many(teacher_folder, tmp_path, monkeypatch):
    poison(monkeypatch, set(range(1, 12)))
    with pytest.raises(FloatingPointError, match="up to 11 of them in a row"):
        distill(chain(teacher_folder, tmp_path, end_steps=4, updates_per_stage=5000))


def test_skipping_is_as_if_the_update_had_not_been():
    """Weights and both moments of fused AdamW stay bit for bit as they were."""
    config = DistillationConfig(learning_rate=0.1)
    model = torch.nn.Linear(3, 2)
    optimizer = make_optimizer(config, model)
    health = Health(Accelerator(cpu=True), 100)

    def update(bad):
        loss = model(torch.ones(1, 3)).square().sum() * (float("nan") if bad else 1)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.guard(health.judge(loss.detach(), norm))
        optimizer.step()
        optimizer.zero_grad()

    def state():
        values = [v.clone() for s in optimizer.state.values() for v in s.values()]
        return [p.detach().clone() for p in model.parameters()] + values

    update(False)
    before = state()
    update(True)
    assert all(torch.equal(a, b) for a, b in zip(before, state()))
    update(False)
    assert not all(torch.equal(a, b) for a, b in zip(before, state()))
    assert health.values()[0][2:] == [1.0, 0.0, 1.0, 0.0]


def test_a_run_without_bad_updates_is_that_of_nobody_judging(teacher_folder, tmp_path, monkeypatch):
    distill(chain(teacher_folder, tmp_path / "judged", end_steps=4))
    monkeypatch.setattr(Health, "judge", lambda *_: None)
    monkeypatch.setattr(Health, "read", lambda *_: (0.0, 0))
    monkeypatch.setattr(GuardedAdamW, "guard", lambda *_: None)
    distill(chain(teacher_folder, tmp_path / "free", end_steps=4))
    assert same(weights(tmp_path / "judged" / "steps-4"), weights(tmp_path / "free" / "steps-4"))
