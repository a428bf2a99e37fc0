"""What a plan says of cost where targets are shared."""

from types import SimpleNamespace

import pytest
from helpers.networks import small_network

from diffusers_progdistill.commands.main import main
from diffusers_progdistill.objectives.denoising import DenoisingObjective
from diffusers_progdistill.objectives.stage import Stage
from diffusers_progdistill.training import plan
from diffusers_progdistill.training.config import DistillationConfig
from diffusers_progdistill.training.plan import build_conversion_stage, seconds_of


@pytest.mark.parametrize("guidance, passes", [(1.0, 4), (2.0, 5)])
def test_converting_asks_the_teacher_anew(guidance, passes):
    stage = build_conversion_stage(DistillationConfig(guidance_scale=guidance, reuse_targets=4, conversion_updates=10))
    assert stage.forward_passes == 10 * passes and stage.reuse == 1


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("reuse", [1, 2, 8])
def test_time_goes_with_the_forward_passes(factor, reuse):
    stage = Stage("steps-4", 100, 3 + factor / reuse, 4, factor, reuse)
    # A second a forward pass: an update with fresh targets takes 3 + factor.
    assert seconds_of(stage, 3 + factor) == pytest.approx(100 * (3 + factor / reuse))


def test_a_teacher_is_planned_and_timed(tmp_path, capsys):
    options = ["--dataset_name", "digits", "--model_config_name_or_path", small_network(tmp_path)]
    options += ["--max_train_steps", "7", "--report_to", "none", "--output_dir", str(tmp_path / "teacher")]
    assert main(["train-teacher", *options, "--dry_run"]) == 0
    said = capsys.readouterr().out
    assert "7 updates" in said and "about" in said and "21 forward passes" in said
    assert not (tmp_path / "teacher").exists()


def test_what_only_a_first_update_needs_is_not_counted(tmp_path, capsys, monkeypatch):
    make_examples, sizes, now = DenoisingObjective.make_examples, set(), 0.0

    def slow_at_first(self, batch, update):
        nonlocal now
        # As a GPU loads its kernels: two seconds for the first of its size, a thousandth for every other.
        now += 0.001 if len(batch.data) in sizes else 2.0
        sizes.add(len(batch.data))
        return make_examples(self, batch, update)

    monkeypatch.setattr(plan, "time", SimpleNamespace(perf_counter=lambda: now))
    monkeypatch.setattr(DenoisingObjective, "make_examples", slow_at_first)
    options = ["--dataset_name", "digits", "--model_config_name_or_path", small_network(tmp_path)]
    options += ["--max_train_steps", "1000000", "--train_batch_size", "16", "--report_to", "none"]
    assert main(["train-teacher", *options, "--output_dir", str(tmp_path / "teacher"), "--dry_run"]) == 0
    assert "about 1,000 s of training" in capsys.readouterr().out and sizes == {1, 16}
