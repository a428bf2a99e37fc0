"""Updates that are not finite leave weights, moments and averages as they are, are counted, and end hopeless runs."""

import json

import pytest
import torch
from accelerate import Accelerator
from helpers.chains import chain, same, weights

from diffusers_progdistill.objectives.distillation import DistillationObjective
from diffusers_progdistill.training.chain import distill
from diffusers_progdistill.training.config import DistillationConfig
from diffusers_progdistill.training.health import Health
from diffusers_progdistill.training.optimizer import GuardedStep, make_optimizer


def poison(monkeypatch, updates, value=float("nan")):
    """Make the loss of some updates of each stage not finite; the counter starts again with each stage."""
    values = updates if isinstance(updates, dict) else dict.fromkeys(updates, value)
    compute, made = DistillationObjective.compute_losses, DistillationObjective.__init__

    def init(self, *args, **kwargs):
        self.count = 0
        made(self, *args, **kwargs)

    def poisoned(self, network, examples):
        self.count += 1
        losses = compute(self, network, examples)
        return {name: loss * values.get(self.count, 1) for name, loss in losses.items()}

    monkeypatch.setattr(DistillationObjective, "__init__", init)
    monkeypatch.setattr(DistillationObjective, "compute_losses", poisoned)


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
    optimizer, accelerator = make_optimizer(config, model), Accelerator(cpu=True)
    health, guard = Health(accelerator, 100), GuardedStep(accelerator, [optimizer])

    def update(bad):
        loss = model(torch.ones(1, 3)).square().sum() * (float("nan") if bad else 1)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        guard.step(health.judge({"loss": loss.detach()}, [norm]))

    def state():
        values = [v.clone() for s in optimizer.state.values() for v in s.values()]
        return [p.detach().clone() for p in model.parameters()] + values

    update(False)
    before = state()
    update(True)
    assert all(torch.equal(a, b) for a, b in zip(before, state()))
    update(False)
    assert not all(torch.equal(a, b) for a, b in zip(before, state()))
    assert health.values()[0][1:5] == [1.0, 0.0, 1.0, 0.0]


def test_a_run_without_bad_updates_is_that_of_nobody_judging(teacher_folder, tmp_path, monkeypatch):
    distill(chain(teacher_folder, tmp_path / "judged", end_steps=4))
    monkeypatch.setattr(Health, "judge", lambda *_: None)
    monkeypatch.setattr(Health, "read", lambda *_: ({"loss": 0.0}, 0))

    def step(guard, skip):
        for optimizer in guard.optimizers:
            optimizer.step()
            optimizer.zero_grad()

    monkeypatch.setattr(GuardedStep, "step", step)
    distill(chain(teacher_folder, tmp_path / "free", end_steps=4))
    assert same(weights(tmp_path / "judged" / "steps-4"), weights(tmp_path / "free" / "steps-4"))


@pytest.mark.parametrize("bad", ["first loss", "second loss", "first norm", "second norm"])
@pytest.mark.parametrize("scaled", [False, True])
def test_several_losses_and_optimizers_are_skipped_together(bad, scaled):
    """Also where every gradient is finite; in fp16 the scale, which all share, is the scaler's to find."""
    accelerator = Accelerator(cpu=True)
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=8.0) if scaled else None
    models = [torch.nn.Linear(3, 2), torch.nn.Linear(3, 1)]
    optimizers = [make_optimizer(DistillationConfig(learning_rate=0.1), model) for model in models]
    health = Health(accelerator, 1000, ("first", "second"))
    guard = GuardedStep(accelerator, optimizers)

    def update(value):
        found = {}
        for name, model in zip(health.losses, models):
            loss = model(torch.ones(1, 3)).square().sum()
            (loss if accelerator.scaler is None else accelerator.scaler.scale(loss)).backward()
            found[f"{name} loss"], found[f"{name} norm"] = loss.detach(), torch.ones(())
        if scaled:
            if value != 1:
                models[1].weight.grad.mul_(value)
            for optimizer in optimizers:
                accelerator.scaler.unscale_(optimizer)
        found[bad] = found[bad] * value
        losses = {name: found[f"{name} loss"] for name in health.losses}
        guard.step(health.judge(losses, [found[f"{name} norm"] for name in health.losses]))

    def weights():
        return [p.detach().clone() for model in models for p in model.parameters()]

    before = weights()
    update(1)
    after = weights()
    assert not any(torch.equal(a, b) for a, b in zip(before, after))
    update(float("inf"))
    # fp16's scaler has looked at each optimizer's own gradient.
    assert all(torch.equal(a, b) for a, b in list(zip(after, weights()))[2 if scaled else 0 :])
    means, skipped = health.read("steps-4", 2)
    assert skipped == 1 and set(means) == {"first", "second"} and all(0 < mean < 100 for mean in means.values())
    if scaled:
        assert accelerator.scaler.get_scale() == 4.0
