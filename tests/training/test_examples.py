"""Targets that serve several updates: who gets which, whatever the split, and after any interruption."""

import json
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from helpers.chains import chain, same, weights
from helpers.stages import make_denoiser, make_run

from diffusers_progdistill.errors import InputError
from diffusers_progdistill.objectives.base import Examples, Objective
from diffusers_progdistill.objectives.stage import Stage
from diffusers_progdistill.training.chain import distill
from diffusers_progdistill.training.examples import BUFFER_BATCHES, ExampleStream


BATCH = 12


class Numbered(Objective):
    """Examples whose target is the noise they were made with: no two are the same."""

    asked = 0

    def make_examples(self, batch, update):
        self.asked += 1
        first = batch.uniform < 0.5
        return Examples(batch.data, batch.uniform, batch.uniform, batch.noise, first, batch.conditioning)

    def compute_losses(self, network, examples):
        raise NotImplementedError


class Process(Accelerator):
    """An accelerator that takes itself for one of several."""

    num_processes = property(lambda self: self.several)
    process_index = property(lambda self: self.number)
    gradient_accumulation_steps = property(lambda self: self.micro_batches)


def stream(updates, reuse, first=0, micro_batches=1, rank=0, world=1):
    accelerator = Process(cpu=True)
    accelerator.several, accelerator.number, accelerator.micro_batches = world, rank, micro_batches
    options = {"class_column": "label", "random_flip": True, "seed": 3}
    run = make_run(accelerator, train_batch_size=BATCH // micro_batches // world, **options)
    stage = Stage("steps-4", updates, 3 + 2 / reuse, 4, reuse=reuse)
    student = replace(make_denoiser(), has_classes=True)
    return ExampleStream(run, Numbered(student, "snr"), stage, first)


def names(examples):
    """What tells an example from all others."""
    return examples.target[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("updates, reuse", [(40, 1), (48, 2), (53, 2), (100, 3), (5, 4), (1, 2)])
def test_every_example_serves_as_often_as_it_was_asked_to(updates, reuse):
    whole, count = stream(updates, reuse), {}
    for update in range(updates):
        (examples,) = whole.read_update(update)
        assert len(set(names(examples))) == BATCH
        for name in names(examples):
            count[name] = count.get(name, 0) + 1
    asked = -(-updates // reuse)
    assert whole.objective.asked == asked and sum(count.values()) == updates * BATCH
    assert max(count.values()) <= reuse
    # Only the last examples serve less often.
    assert sum(reuse - times for times in count.values()) == (asked * reuse - updates) * BATCH


def test_updates_mix_batches():
    mixed, fresh = stream(4 * BUFFER_BATCHES, 2), stream(2 * BUFFER_BATCHES, 1)
    batches = [set(names(next(fresh.read_update(k)))) for k in range(2 * BUFFER_BATCHES)]
    block = {name for batch in batches[:BUFFER_BATCHES] for name in batch}
    for update in range(2 * BUFFER_BATCHES):
        got = set(names(next(mixed.read_update(update))))
        assert got <= block and got not in batches


@pytest.mark.parametrize("first", [0, 1, 7, 15, 16, 17, 31, 32, 49])
def test_a_stream_goes_on_where_another_was_stopped(first):
    whole, rest = stream(50, 2), stream(50, 2, first=first)
    for update in range(50):
        (wanted,) = whole.read_update(update)
        if update >= first:
            (got,) = rest.read_update(update)
            assert all(torch.equal(getattr(got, k), getattr(wanted, k)) for k in ("z", "angle", "time", "target"))
            assert torch.equal(got.is_last, wanted.is_last)
            assert torch.equal(got.conditioning["class_labels"], wanted.conditioning["class_labels"])


@pytest.mark.parametrize("micro_batches, world", [(2, 1), (1, 2), (3, 2)])
def test_any_split_gets_the_same(micro_batches, world):
    whole, split = (
        stream(40, 2),
        [stream(40, 2, micro_batches=micro_batches, rank=r, world=world) for r in range(world)],
    )
    for update in range(40):
        (wanted,) = whole.read_update(update)
        columns = [list(one.read_update(update)) for one in split]
        got = torch.cat([columns[rank][k].target for k in range(micro_batches) for rank in range(world)])
        assert torch.equal(got, wanted.target)


def test_a_chain_of_four_fold_stages_with_targets_that_serve_twice(teacher_folder, tmp_path):
    options = {"start_steps": 32, "updates_per_stage": 10, "stage_factor": 4, "reuse_targets": 2}
    distill(chain(teacher_folder, tmp_path / "whole", **options))
    record = json.loads((tmp_path / "whole" / "chain.json").read_text())
    assert [s["name"] for s in record["stages"]] == ["steps-8", "steps-2", "steps-1"]
    # Three for the student; four and two of the teacher, for every other update.
    assert [s["forward_passes"] for s in record["stages"]] == [10 * 5, 20 * 5, 20 * 4]
    assert record["settings"]["stage_factor"] == 4 and record["settings"]["reuse_targets"] == 2

    for wrong in (0, 1, 3, 6, -2):
        with pytest.raises(InputError, match=f"--stage_factor must be 2, 4, 8 or another power of two, not {wrong}"):
            chain(teacher_folder, tmp_path, stage_factor=wrong).check()

    # A run that is cut within a block of updates ends with the same weights.
    stopped = chain(teacher_folder, tmp_path / "cut", **options, checkpointing_steps=6)
    from diffusers_progdistill.training import loop

    def stop(*arguments):
        raise KeyboardInterrupt

    original = loop.Checkpoints.save
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Checkpoints, "save", lambda *a: (original(*a), stop())[0])
        with pytest.raises(KeyboardInterrupt):
            distill(stopped)
    distill(stopped)
    assert same(weights(tmp_path / "whole" / "steps-1"), weights(tmp_path / "cut" / "steps-1"))
