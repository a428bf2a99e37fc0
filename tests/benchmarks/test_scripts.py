"""The benchmark scripts run and measure what they say; how long it takes is nobody's business here."""

import json
from pathlib import Path

import pytest
from helpers.processes import run


ROOT = Path(__file__).parents[2]


def script(name, *words):
    status, output = run([str(ROOT / "benchmarks" / name), *words], HOME="/tmp")
    assert status == 0, output
    return output


@pytest.mark.slow
def test_speed_of_the_smallest_network(tmp_path):
    words = [
        "--small",
        "--repeats",
        "2",
        "--rows",
        "updates,peers,sampling,others",
        "--json",
        str(tmp_path / "speed.json"),
    ]
    output = script("speed/run.py", *words, "--openai", str(tmp_path / "nowhere"))
    content = json.loads((tmp_path / "speed.json").read_text())
    # Targets are compared with the paper's formulas in float64 before anything is timed.
    assert content["target_error"] < 1e-5 and content["threads"] == 1
    sides = {(row["row"], row["side"]) for row in content["rows"]}
    assert ("update, demo, 8x8, batch 8", "floor") in sides and ("scheduler step, 1 image of 8x8", "ours") in sides
    assert ("evaluation of 20 images of 8x8", "measure them") in sides
    assert ("20 images of 28x28 from a parquet file", "read the file") in sides
    assert all(row["median"] > 0 and row["repeats"] == 2 for row in content["rows"])
    assert "openai: skipped" in output and "hramchenko: skipped" in output


@pytest.mark.slow
def test_what_runs_on_a_gpu_runs_on_a_cpu(tmp_path):
    words = ["--sizes", "16", "--batch_sizes", "2", "--blocks", "4", "--block", "2", "--repeats", "1", "--eager"]
    script("speed/gpu.py", *words, "--json", str(tmp_path / "gpu.json"))
    rows = {row["row"]: row for row in json.loads((tmp_path / "gpu.json").read_text())["rows"]}
    update = rows["update, 16x16, batch 2, bf16"]
    assert update["images_per_second"] > 0 and update["of_floor"] > 0 and "4 steps, 16x16, batch 2, bf16" in rows
