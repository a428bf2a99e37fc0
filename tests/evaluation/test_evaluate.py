"""`progdistill evaluate`: the same figures whatever makes them."""

import shutil
import subprocess
import sys

import pytest
import torch
from helpers.evaluations import evaluate, figures, is_images, results
from huggingface_hub import metadata_load
from safetensors.torch import load_file

from diffusers_progdistill.commands.evaluate import EvaluationConfig
from diffusers_progdistill.evaluation import figures as figures_module
from diffusers_progdistill.training.evaluate import take_data_of


ASKED = "--num_images 60 --steps 4,8 --reference_steps 8 --seeds 1,2 --samplers progdistill,ddpm".split()


def test_a_run_is_measured_and_its_card_says_so(run_folder, tmp_path, capsys):
    assert evaluate(run_folder, *ASKED, cache=tmp_path) == 0
    told = capsys.readouterr().out
    assert "teacher" in told and "steps-2" in told and "real images" in told
    rows = figures(results(run_folder))
    assert {key[:3] for key in rows} == {
        ("teacher", "progdistill", 4), ("teacher", "progdistill", 8), ("teacher", "ddpm", 4), ("teacher", "ddpm", 8),
        ("steps-4", "progdistill", 4), ("steps-2", "progdistill", 2),
    }  # fmt: skip
    assert (run_folder / "curve.png").stat().st_size > 1000
    # The teacher at the reference steps is the reference.
    assert rows["teacher", "progdistill", 8, 1][4] == pytest.approx(
        10 * torch.log10(torch.tensor(255**2 * 64.0)).item()
    )
    # A second call measures nothing, a call for more measures what is missing, and what was there stays.
    before = (run_folder / "evaluation.json").read_bytes()
    assert evaluate(run_folder, *ASKED, cache=tmp_path) == 0
    assert (run_folder / "evaluation.json").read_bytes() == before
    assert evaluate(run_folder, *ASKED, "--steps", "4,8,16", cache=tmp_path) == 0
    more = figures(results(run_folder))
    assert len(more) == len(rows) + 4 and all(more[key] == rows[key] for key in rows)
    # Both students' figures stand in the card's metadata with the range, and as a table.
    text = (run_folder / "README.md").read_text()
    assert "## Evaluation" in text and "| steps-2 | progdistill | 2 |" in text
    metrics = metadata_load(run_folder / "README.md")["model-index"][0]["results"][0]["metrics"]
    own = [m for m in metrics if m["type"] == "frechet_distance" and m["args"]["num_inference_steps"] == 2]
    values = sorted(rows["steps-2", "progdistill", 2, seed][0] for seed in (1, 2))
    assert own[0]["args"]["range"] == pytest.approx(values) and own[0]["args"]["num_images"] == 60


def forget_images(cache):
    """Delete what a cache holds of a reference's images; their number."""
    files = [path for path in cache.glob("*.safetensors") if is_images(path)]
    for path in files:
        path.unlink()
    return len(files)


@pytest.mark.slow
def test_reference_is_kept_in_chunks(run_folder, tmp_path, monkeypatch):
    asked = ["--num_images", "1100", "--steps", "4", "--reference_steps", "4", "--seeds", "3"]
    assert evaluate(run_folder, *asked, "--output_dir", tmp_path / "whole", cache=tmp_path) == 0
    kept = {path: len(load_file(path)["images"]) for path in tmp_path.glob("*.safetensors") if is_images(path)}
    assert sorted(kept.values()) == [500, 500, 500]
    # A run that was stopped has some of them; the others are made again, and are the same.
    next(iter(kept)).unlink()
    made = []
    sample_chunk = figures_module.sample_chunk
    monkeypatch.setattr(figures_module, "sample_chunk", lambda *a: made.append(a[1].num_steps) or sample_chunk(*a))
    assert evaluate(run_folder, *asked, "--output_dir", tmp_path / "again", cache=tmp_path) == 0
    # The student of 4 steps and what was missing of the reference; then the student of 2 steps.
    assert sorted(made, reverse=True) == [4, 4, 4, 4, 2, 2, 2]
    assert figures(results(tmp_path / "again")) == figures(results(tmp_path / "whole"))


def test_runs_side_by_side_and_their_real_images(run_folder, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(run_folder, other)
    asked = ["--steps", "2", "--reference_steps", "2", "--output_dir", tmp_path / "out"]
    # The fewest images that can be measured; then more, of which real ones are nearer to each other.
    assert evaluate(run_folder, other, *asked, "--num_images", "4", cache=tmp_path) == 0
    assert evaluate(run_folder, *asked, "--num_images", "20", cache=tmp_path) == 0
    rows = results(tmp_path / "out")
    names = {row["model"] for row in rows if row["num_images"] == 4}
    assert names == {f"{run}/{model}" for run in ("run", "other") for model in ("teacher", "steps-4", "steps-2")}
    real = {row["num_images"]: row["real_vs_real"]["frechet_distance"] for row in rows}
    assert real.keys() == {4, 20} and real[4] > real[20]


def test_what_was_typed_stays():
    config = EvaluationConfig(resolution=16)
    take_data_of(config, {"run": {"settings": {"dataset_name": "digits", "resolution": 8, "center_crop": False}}})
    assert (config.dataset_name, config.resolution, config.center_crop) == ("digits", 16, False)


@pytest.mark.slow
def test_batch_size_and_processes_change_nothing(run_folder, tmp_path):
    asked = ["--num_images", "1100", "--steps", "4", "--reference_steps", "4", "--seeds", "3"]
    for size in (50, 250, 1000):
        options = ["--eval_batch_size", size, "--output_dir", tmp_path / f"{size}"]
        assert evaluate(run_folder, *asked, *options, cache=tmp_path) == 0
        # The images of the reference are made every time; the classifier is the same.
        assert forget_images(tmp_path) == 3
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m"]
    command += ["diffusers_progdistill.commands.main", "evaluate", str(run_folder), *asked, "--eval_batch_size", "50"]
    for name in ("two", "kept"):
        options = ["--output_dir", str(tmp_path / name), "--cache_dir", str(tmp_path)]
        done = subprocess.run([*command, *options], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
    # The second time they were there.
    assert forget_images(tmp_path) == 3
    one = figures(results(tmp_path / "50"))
    for other in ("250", "1000", "two", "kept"):
        again = figures(results(tmp_path / other))
        assert again.keys() == one.keys()
        for key in one:
            assert again[key] == pytest.approx(one[key], rel=1e-6)
