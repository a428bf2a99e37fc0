"""benchmarks/quality/loss_parts.py trains what it says, goes on where it was, and divides what belongs together."""

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from diffusers_progdistill.evaluation.extractors import Extractor


SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "quality" / "loss_parts.py"))


def results_in(folder, distance_of):
    results = SCRIPT["Results"](folder, SimpleNamespace(), 10, [101, 102])
    for name in SCRIPT["LOSSES"]:
        for training in (0, 1):
            for steps in SCRIPT["STEPS"]:
                rows = [
                    {"seed": s, "distance": distance_of(name, training, steps, s), "ends": 0.25} for s in (102, 101)
                ]
                results.rows[f"{name}, {training}, {steps}"] = rows
    return results


def test_ratios_are_of_the_same_seeds(tmp_path):
    plain = SCRIPT["PLAIN"]
    base = {(t, s): 1 + 3 * t + s for t in (0, 1) for s in (101, 102)}
    factors = dict(zip(SCRIPT["LOSSES"], (1, 0.9, 1.1, 1.25)))
    text = SCRIPT["table"](results_in(tmp_path, lambda n, t, k, s: factors[n] * base[t, s]), [0, 1])
    lines = text.splitlines()
    assert len(lines) == 2 + len(factors) and all(line.count("|") == 7 for line in lines)
    assert "| 1 (104.00) |" in lines[2] and plain in lines[2] and "25.00, 25.00, 25.00, 25.00 %" in lines[2]
    assert [line.split("|")[2].strip() for line in lines[3:]] == [
        f"{f:.3f} [{f:.3f}, {f:.3f}]" for f in (0.9, 1.1, 1.25)
    ]


@pytest.mark.slow
def test_it_trains_four_losses_and_goes_on(teacher_folder, tmp_path, monkeypatch, capsys):
    pixels = Extractor("pixels", "FD (pixels)", "pixels", lambda x: x.float().flatten(1)[:, :16], torch.device("cpu"))
    monkeypatch.setitem(SCRIPT["main"].__globals__, "load_extractor", lambda *_: pixels)
    words = [str(teacher_folder), str(tmp_path), "--updates", "1", "--num_images", "40", "--seeds", "0"]
    more = ["--", "--dataset_name", "digits", "--start_steps", "16", "--train_batch_size", "4"]
    SCRIPT["main"]([*words, "--sampling_seeds", "101", *more])
    first = json.loads((tmp_path / "results.json").read_text())
    assert len(first) == 1 + 4 * 4 and all(len(rows) == 1 for rows in first.values())
    settings = [json.loads(p.read_text())["settings"] for p in sorted(tmp_path.glob("*/chain.json"))]
    told = {(s.get("loss_type", "l2"), s.get("clip_loss", False)) for s in settings}
    assert told == {(a, b) for a in ("l2", "huber") for b in (False, True)}
    capsys.readouterr()
    SCRIPT["main"]([*words, "--sampling_seeds", "101", "102", *more])
    again = json.loads((tmp_path / "results.json").read_text())
    assert all(again[name][:1] == rows and len(again[name]) == 2 for name, rows in first.items())
    said = capsys.readouterr().out
    assert said.count("is finished already") == 4 and "| pseudo-Huber, clipped |" in said and "real images 5" in said
