"""Stages that end once their loss has settled, and the ones that do not."""

import json

import pytest
import torch
from helpers.chains import chain, same, weights

from diffusers_progdistill.training import loop
from diffusers_progdistill.training.chain import distill
from diffusers_progdistill.training.early_end import LANDING, WINDOW, EarlyEnd


def run(losses, planned=1000, every=10, threshold=0.02, warmup=0):
    """The end that is known after losses, one every few updates."""
    ending = EarlyEnd(planned, warmup, threshold)
    for k, loss in enumerate(losses, 1):
        if k * every < ending.end:
            ending.note(k * every, loss)
    return ending


def test_a_falling_loss_keeps_to_the_plan():
    assert run([0.9**k for k in range(100)]).end == 1000
    assert run([1.0] * 100, threshold=0.0).end == 1000
    assert run([1.0] * (2 * WINDOW - 1)).end == 1000
    assert run([None] * 100).end == 1000


def test_a_settled_loss_ends_the_stage_a_quarter_later():
    ending = run([0.8**k for k in range(20)] + [0.8**20] * 80)
    # The first window that is flat against the one before.
    assert 200 < ending.settled <= 10 * (20 + 2 * WINDOW)
    assert ending.end == ending.settled + round(LANDING * ending.settled)
    assert run([1.0] * 100, planned=105).end == 105


def test_the_warm_up_says_nothing():
    # The rate is near 0 for so long that nothing is learned.
    assert run([1.0] * 100, warmup=500).settled == 500 + 2 * WINDOW * 10


def test_the_rate_then_falls_to_nothing():
    ending, rate = run([1.0] * 50), lambda update: 1 - update / 1000
    assert ending.settled == 100 and ending.end == 125
    assert ending.factor(rate, 100) == pytest.approx(0.9) and ending.factor(rate, 125) == 0
    assert ending.factor(rate, 110) == pytest.approx(0.9 * 15 / 25)
    other = EarlyEnd(1000, 0, 0.02)
    other.restore(json.loads(json.dumps(ending.state())))
    assert vars(other) == vars(ending)


def test_a_chain_whose_stages_end_early_goes_on_after_a_stop(teacher_folder, tmp_path):
    options = {"end_steps": 2, "updates_per_stage": 400, "logging_steps": 2, "early_stopping_threshold": 0.5}
    distill(chain(teacher_folder, tmp_path / "whole", **options))
    record = json.loads((tmp_path / "whole" / "chain.json").read_text())
    assert all(20 <= s["updates"] < 400 and s["forward_passes"] == 5 * s["updates"] for s in record["stages"])
    assert record["settings"]["early_stopping_threshold"] == 0.5 and record["settings"]["logging_steps"] == 2

    original = loop.Checkpoints.save

    def save_and_stop(*arguments):
        original(*arguments)
        raise KeyboardInterrupt

    cut = chain(teacher_folder, tmp_path / "cut", **options, checkpointing_steps=17)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Checkpoints, "save", save_and_stop)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                distill(cut)
    distill(cut)
    assert same(weights(tmp_path / "whole" / "steps-2"), weights(tmp_path / "cut" / "steps-2"))
    assert not torch.equal(*(next(iter(weights(tmp_path / "whole" / f"steps-{n}").values())) for n in (4, 2)))
