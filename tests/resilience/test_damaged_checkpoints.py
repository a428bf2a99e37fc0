"""A checkpoint that is not what was written is not used: the one before is, or the stage starts again."""

import functools
import json
import pickle
import shutil
import signal

import pytest
import torch
from helpers.processes import chain_options, logged, run, stopped_at, weights

from diffusers_progdistill.commands.main import main
from diffusers_progdistill.training.checkpointing import write_manifest


@pytest.fixture(scope="module")
def stopped(teacher_folder, tmp_path_factory):
    """A chain killed when it had two checkpoints of its first stage, and the students that it leads to."""
    folder, whole = (tmp_path_factory.mktemp("stopped") / n for n in ("run", "whole"))
    options = {"updates_per_stage": 5, "end_steps": 2}
    words = ["distill", *chain_options(teacher_folder, folder, **options)]
    assert run(stopped_at(8, signal.SIGKILL, *words))[0] == -signal.SIGKILL
    assert main(["distill", *chain_options(teacher_folder, whole, **options)]) == 0
    return folder, whole, options


def resume(stopped, tmp_path, teacher_folder, damage, capsys):
    """Copy the stopped run, damage it, go on in this process, and compare. Returns what was printed."""
    source, whole, options = stopped
    folder = tmp_path / "again"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)
    checkpoints = sorted((folder / "checkpoints").glob("steps-2-*"))
    damage(checkpoints)
    status = main(["distill", *chain_options(teacher_folder, folder, **options)])
    said = capsys.readouterr()
    assert status == 0, said.err
    assert weights(folder) == weights(whole) and logged(folder) == logged(whole)
    assert "Traceback" not in said.out + said.err
    return said.out


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def delete(path):
    path.unlink()


@pytest.mark.parametrize(
    "ways",
    [(truncate,), pytest.param((empty, flip_a_bit, delete), marks=pytest.mark.slow)],
    ids=["truncated", "others"],
)
def test_each_file_damaged(stopped, tmp_path, teacher_folder, capsys, ways):
    names = sorted(p.name for p in (sorted((stopped[0] / "checkpoints").glob("steps-2-*"))[-1]).iterdir())
    assert {"state.json", "manifest.json"} <= set(names)
    assert {f"model{kind}.safetensors" for kind in ("", ".optimizer", ".average")} <= set(names)
    for name in names:
        for way in ways:
            damage = functools.partial(lambda found, way, name: way(found[-1] / name), way=way, name=name)
            said = resume(stopped, tmp_path, teacher_folder, damage, capsys)
            assert "00000006 is not used" in said and "going on from checkpoint steps-2-00000003" in said, (name, way)


def test_all_damaged_starts_the_stage_again(stopped, tmp_path, teacher_folder, capsys):
    def damage(found):
        for path in found:
            truncate(path / "model.optimizer.safetensors")
            write_manifest(path)  # even if the checksums are right

    assert "starting the stage again" in resume(stopped, tmp_path, teacher_folder, damage, capsys)


class Hostile:
    """Pickled, it would write a file when it is loaded."""

    def __init__(self, canary):
        self.canary = str(canary)

    def __reduce__(self):
        return open, (self.canary, "w")


@pytest.mark.parametrize("name", ["optimizer.bin", "random_states_0.pkl", "pytorch_model.bin"])
def test_pickles_run_no_code(stopped, tmp_path, teacher_folder, capsys, name):
    canary = tmp_path / "canary"

    def damage(found):
        (found[-1] / "model.safetensors").unlink() if name == "pytorch_model.bin" else None
        with open(found[-1] / name, "wb") as file:
            if name.endswith(".bin"):
                torch.save({"state": Hostile(canary)}, file)
            else:
                pickle.dump(Hostile(canary), file)
        (found[-1] / "manifest.json").unlink()
        write_manifest(found[-1])

    said = resume(stopped, tmp_path, teacher_folder, damage, capsys)
    assert not canary.exists()
    assert "00000006 is not used" in said


def test_a_link_out_of_the_folder_is_not_followed(stopped, tmp_path, teacher_folder, capsys):
    def damage(found):
        target = found[-1] / "model.safetensors"
        shutil.copy(target, tmp_path / "elsewhere")
        target.unlink()
        target.symlink_to(tmp_path / "elsewhere")

    assert "is a symbolic link" in resume(stopped, tmp_path, teacher_folder, damage, capsys)


def test_names_out_of_the_folder(stopped, tmp_path, teacher_folder, capsys):
    def damage(found):
        manifest = json.loads((found[-1] / "manifest.json").read_text())
        manifest["files"]["../../chain.json"] = {"size": 1, "sha256": ""}
        (found[-1] / "manifest.json").write_text(json.dumps(manifest))

    assert "is not used" in resume(stopped, tmp_path, teacher_folder, damage, capsys)


def test_a_checkpoint_by_name(stopped, tmp_path, teacher_folder, capsys):
    source, whole, options = stopped
    folder = shutil.copytree(source, tmp_path / "again")
    words = ["distill", *chain_options(teacher_folder, folder, **options)]
    assert main([*words, "--resume_from_checkpoint=steps-2-00000099"]) == 2
    assert "steps-2-00000003, steps-2-00000006" in capsys.readouterr().err
    assert main([*words, "--resume_from_checkpoint=steps-2-00000003"]) == 0
    assert "from checkpoint steps-2-00000003" in capsys.readouterr().out
    assert weights(folder) == weights(whole)


def test_the_limit_keeps_the_newest(teacher_folder, tmp_path):
    folder = tmp_path / "run"
    options = {"updates_per_stage": 1000, "end_steps": 2, "checkpoints_total_limit": 1, "checkpointing_steps": 1}
    words = ["distill", *chain_options(teacher_folder, folder, **options)]
    assert run(stopped_at(4, signal.SIGTERM, *words))[0] == 143
    assert len(list((folder / "checkpoints").iterdir())) == 1
