"""Targets that serve several updates: who gets which, whatever the split, and after any interruption."""

import json
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from helpers.chains import chain, same, weights

from diffusers_progdistill.data import load_digits
from diffusers_progdistill.errors import InputError
from diffusers_progdistill.training.chain import distill
from diffusers_progdistill.training.feed import BUFFER_BATCHES, Feed
from diffusers_progdistill.training.stage import Draws, Examples, Stage


BATCH = 12


class Numbered:
    """Examples whose target is the noise they were made with: no two are the same."""

    asked = 0

    def examples(self, batch):
        self.asked += 1
        return Examples(batch.images, batch.uniform, batch.uniform, batch.noise, batch.labels)


class Process(Accelerator):
    """An accelerator that takes itself for one of several."""

    num_processes = property(lambda self: self.several)
    process_index = property(lambda self: self.number)
    gradient_accumulation_steps = property(lambda self: self.parts)


def feed(updates, reuse, first=0, parts=1, rank=0, world=1):
    accelerator = Process(cpu=True)
    accelerator.several, accelerator.number, accelerator.parts = world, rank, parts
    options = {"train_batch_size": BATCH // parts // world}
    config = SimpleNamespace(**options, seed=3, dataloader_num_workers=0)
    stage = Stage("steps-4", 4, updates, 3 + 2 / reuse, reuse=reuse)
    draws = Draws(3, 4, BATCH, torch.device("cpu"), flip=True)
    return Feed(accelerator, Numbered(), load_digits(), draws, config, stage, first, labelled=True)


def names(examples):
    """What tells an example from all others."""
    return examples.target[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("updates, reuse", [(40, 1), (48, 2), (53, 2), (100, 3), (5, 4), (1, 2)])
def test_every_example_serves_as_often_as_it_was_asked_to(updates, reuse):
    whole, count = feed(updates, reuse), {}
    for update in range(updates):
        (examples,) = whole.of_update(update)
        assert len(set(names(examples))) == BATCH
        for name in names(examples):
            count[name] = count.get(name, 0) + 1
    asked = -(-updates // reuse)
    assert whole.objective.asked == asked and sum(count.values()) == updates * BATCH
    assert max(count.values()) <= reuse
    # Only the last examples serve less often.
    assert sum(reuse - times for times in count.values()) == (asked * reuse - updates) * BATCH


def test_updates_mix_batches():
    mixed, fresh = feed(4 * BUFFER_BATCHES, 2), feed(2 * BUFFER_BATCHES, 1)
    batches = [set(names(next(fresh.of_update(k)))) for k in range(2 * BUFFER_BATCHES)]
    block = {name for batch in batches[:BUFFER_BATCHES] for name in batch}
    for update in range(2 * BUFFER_BATCHES):
        got = set(names(next(mixed.of_update(update))))
        assert got <= block and got not in batches


@pytest.mark.parametrize("first", [0, 1, 7, 15, 16, 17, 31, 32, 49])
def test_a_feed_goes_on_where_another_was_stopped(first):
    whole, rest = feed(50, 2), feed(50, 2, first=first)
    for update in range(50):
        (wanted,) = whole.of_update(update)
        if update >= first:
            (got,) = rest.of_update(update)
            assert all(torch.equal(getattr(got, k), getattr(wanted, k)) for k in ("z", "timestep", "target", "labels"))


@pytest.mark.parametrize("parts, world", [(2, 1), (1, 2), (3, 2)])
def test_any_split_gets_the_same(parts, world):
    whole, split = feed(40, 2), [feed(40, 2, parts=parts, rank=r, world=world) for r in range(world)]
    for update in range(40):
        (wanted,) = whole.of_update(update)
        columns = [list(one.of_update(update)) for one in split]
        got = torch.cat([columns[rank][part].target for part in range(parts) for rank in range(world)])
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
