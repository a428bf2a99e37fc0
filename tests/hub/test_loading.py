"""What loads how, from the Hub, with and without this package: the table of docs/hub.md is made here."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.networks import tiny_unet
from helpers.processes import run

from diffusers_progdistill import ProgressiveDistillationScheduler, save_pipeline
from diffusers_progdistill.pipelines.export import attach_metadata


ROOT = Path(__file__).parents[2]
OURS = "ProgressiveDistillationPipeline.from_pretrained(repo)"
REVISION = 'repo, revision="steps-8")'
KINDS = {
    "me/plain": "unconditional",
    "me/classes": "class-conditional",
    "me/three-steps": "3 steps",
}


def serve(hub, folder):
    """One repository for each kind of student; the first has two students."""
    for name, steps, classes in (("plain", 8, None), ("plain", 4, None), ("classes", 4, 10), ("three-steps", 3, None)):
        path = folder / f"{name}-{steps}"
        scheduler = attach_metadata(ProgressiveDistillationScheduler(), num_inference_steps=steps)
        save_pipeline(tiny_unet(num_class_embeds=classes), scheduler, path)
        files = {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}
        tags = dict(hub.repos[("models", f"me/{name}")].tags) if ("models", f"me/{name}") in hub.repos else {}
        old = hub.repos[("models", f"me/{name}")].commits if tags else []
        repo = hub.add_repo(f"me/{name}", files=files)
        repo.commits = [*old, repo.head]
        repo.tags = {**tags, f"steps-{steps}": repo.head.oid}


def table(hub, folder, mode, path=()):
    """The table as a process of its own finds it; `path` comes before everything that is installed."""
    script = Path(__file__).parents[1] / "helpers" / "hub_loading.py"
    if mode == "with" and not path:
        # Where this package may be imported already.
        status, output = run([str(script), mode])
        assert status == 0, output
        return json.loads(output.splitlines()[-1])
    environment = {**os.environ, **hub.environment(folder / f"home-{mode}"), "PYTHONPATH": os.pathsep.join(path)}
    made = subprocess.run([sys.executable, script, mode], env=environment, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return json.loads(made.stdout.splitlines()[-1])


def cell(found, ours):
    """What a call gives: a class; other images than our pipeline's, which are wrong; or nothing."""
    if found is None:
        return ""
    if not isinstance(found, list):
        return "no"
    is_right = len(found) == 1 or found[1] == pytest.approx(ours[1], abs=1e-3)
    return f"`{found[0]}`" if is_right else f"`{found[0]}`, wrong images"


def as_markdown(results):
    calls = list(dict.fromkeys(key.split(" ", 1)[1] for key in results["with"]))
    lines = ["| " + " | ".join(["call", *(f"{k}, {m}" for k in KINDS.values() for m in results)]) + " |"]
    lines.append("|---" + "|:-:" * (len(KINDS) * len(results)) + "|")
    for call in calls:
        cells = []
        for repo in KINDS:
            for mode in results:
                found = results[mode].get(f"{repo} {call}")
                ours = f"{repo} {OURS.replace('repo)', REVISION) if REVISION in call else OURS}"
                cells.append(cell(found, results["with"].get(ours)))
        lines.append("| " + " | ".join([f"`{call}`", *cells]) + " |")
    return "\n".join(lines)


def check(hub, folder, path=()):
    serve(hub, folder)
    results = {mode: table(hub, folder, mode, path) for mode in ("without", "with")}
    page = (ROOT / "docs" / "hub.md").read_text()
    written = re.search(r"<!-- loading -->\n(.*?)\n<!-- end -->", page, re.DOTALL)[1]
    assert as_markdown(results) == written, json.dumps(results, indent=2)
    sums = {mode: results[mode]["me/plain DiffusionPipeline.from_pretrained(repo)"][1] for mode in results}
    assert sums["with"] == sums["without"]


def test_what_loads_how(hub, tmp_path):
    check(hub, tmp_path)


@pytest.mark.slow
def test_what_loads_how_in_the_lowest_versions(hub, tmp_path):
    text = (ROOT / "setup.py").read_text()
    names = ("diffusers", "huggingface_hub", "transformers")
    pins = [f"{name}=={re.search(rf'{name}>=([0-9.]+)', text)[1]}.*" for name in names]
    target = tmp_path / "lowest"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--target", target, *pins], check=True)
    check(hub, tmp_path, (str(target),))
