"""
Checkpoints of the stage that is being trained.

A checkpoint is a folder `checkpoints/STAGE-UPDATE` that accelerate's `save_state` fills (or, where parameters are
sharded, [`save_whole`]), with `state.json` and
`ema.safetensors` of our own and a manifest of checksums, which is written last. It is made under a temporary name,
flushed to disk and renamed: it is there whole or not at all. What is read is checked against the manifest first, and
nothing in it can run code: tensors are safetensors, the optimizer's state is unpickled with `weights_only`.
"""

import hashlib
import json
import re
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from ..disk import replace_folder, writing
from ..errors import InputError, describe_reason
from .loss_scale import read_scale, restore_scale
from .sharding import GROUPS_NAME, fill, load_whole, save_whole, whole


MANIFEST_NAME = "manifest.json"
STATE_NAME, EMA_NAME = "state.json", "ema.safetensors"


class Damaged(Exception):
    """A checkpoint that is not what was written."""


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: Path):
    """Names, sizes and checksums of all files of a folder, in `manifest.json`."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    entries = {p.relative_to(folder).as_posix(): {"size": p.stat().st_size, "sha256": sha256(p)} for p in files}
    (folder / MANIFEST_NAME).write_text(json.dumps({"files": entries}, indent=2), encoding="utf-8")


def check_manifest(folder: Path):
    """Raise [`Damaged`] unless a folder holds exactly the files of its manifest."""
    try:
        entries = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))["files"]
        paths = [p for p in folder.rglob("*") if not p.is_dir() or p.is_symlink()]
        found = {p.relative_to(folder).as_posix(): p for p in paths if p.name != MANIFEST_NAME}
        for name in sorted({*entries, *found}):
            path = found.get(name)
            if path is None or name not in entries:
                raise Damaged(f"{name} is {'missing' if path is None else 'not one of its files'}")
            if path.is_symlink():
                raise Damaged(f"{name} is a symbolic link")
            if path.stat().st_size != entries[name]["size"] or sha256(path) != entries[name]["sha256"]:
                raise Damaged(f"{name} has been changed")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"{MANIFEST_NAME} cannot be read") from error


class Checkpoints:
    """
    The checkpoints of one stage.

    Args:
        accelerator ([`~accelerate.Accelerator`]): It saves and loads what it has prepared.
        folder (`Path`): The output folder.
        stage (`str`): The stage's name.
        total_limit (`int`, *optional*): How many are kept, the newest ones. Default: all.
        wanted (`str`): `"latest"`, or the name of the one to resume from.
    """

    def __init__(self, accelerator, folder: Path, stage: str, total_limit: int | None = None, wanted: str = "latest"):
        self.accelerator, self.folder, self.stage = accelerator, folder / "checkpoints", stage
        self.total_limit, self.wanted = total_limit, wanted
        self.model = self.optimizer = None

    def attach(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer):
        """Name the prepared model, unwrapped, and its optimizer."""
        self.model, self.optimizer = model, optimizer

    def paths(self) -> list[Path]:
        """Complete checkpoints of this stage, the newest first. (A temporary name is not one.)"""
        pattern = re.compile(rf"{re.escape(self.stage)}-\d{{8,}}")
        found = self.folder.iterdir() if self.folder.is_dir() else []
        return sorted((p for p in found if pattern.fullmatch(p.name)), reverse=True)

    def save(self, update: int, state: dict, ema=None):
        """
        Write a checkpoint; called by all processes.

        Args:
            update (`int`): Number of updates done.
            state (`dict`): JSON values that come back from [`Checkpoints.load`].
            ema ([`~diffusers.training_utils.EMAModel`], *optional*): Its average is saved too.
        """
        accelerator = self.accelerator
        final, scale = self.folder / f"{self.stage}-{update:08d}", read_scale(accelerator)

        def write(temporary: Path):
            accelerator.wait_for_everyone()
            self._write_state(temporary)
            # Nothing here depends on the state of a random generator, and these files would have to be unpickled.
            (temporary / f"random_states_{accelerator.process_index}.pkl").unlink(missing_ok=True)
            average = {} if ema is None else {f"{k:06d}": whole(p) for k, p in enumerate(ema.shadow_params)}
            accelerator.wait_for_everyone()
            if accelerator.is_main_process:
                if ema is not None:
                    save_file({k: p.contiguous() for k, p in average.items()}, temporary / EMA_NAME)
                text = json.dumps({"stage": self.stage, "update": update, "loss_scale": scale, **state})
                (temporary / STATE_NAME).write_text(text, encoding="utf-8")
                write_manifest(temporary)

        if accelerator.is_main_process:
            with writing(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
            replace_folder(final, write)
            self._prune()
        else:
            write(final.with_name(f".{final.name}.tmp"))
        accelerator.wait_for_everyone()

    def _write_state(self, folder: Path):
        if self.accelerator.is_fsdp2:
            # accelerate's own form of it has pickled parts.
            save_whole(self.accelerator, self.model, self.optimizer, folder)
        else:
            self.accelerator.save_state(str(folder))

    def _prune(self):
        """Delete the oldest ones over the limit. The newest was renamed into place just now, so it is whole."""
        for path in self.paths()[self.total_limit or None :]:
            shutil.rmtree(path, ignore_errors=True)
        for path in self.folder.glob(".*.tmp"):
            shutil.rmtree(path, ignore_errors=True)

    def clear(self):
        """Delete the checkpoints of this stage, when its student is complete on disk."""
        for path in self.paths():
            shutil.rmtree(path, ignore_errors=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def load(self, ema=None) -> dict | None:
        """
        Bring the attached model and optimizer, `ema` and the loss scale to the newest checkpoint that is whole.

        Returns:
            `dict` or `None`: Its state with `"update"`; `None` if there is no usable checkpoint.

        Raises:
            [`InputError`]: If one was asked for by name and is not there or not usable.
        """
        candidates = self._candidates()
        if not candidates:
            return None
        initial = {k: v.clone() for k, v in self.model.state_dict().items()}
        for path in candidates:
            state, reason = None, ""
            try:
                state = self._load_one(path, ema)
            except Exception as error:  # a damaged or hostile file may raise anything; that is why it is not used
                reason = describe_reason(error)
            if self._all_agree(state is not None):
                self._forget_after(path)
                self.accelerator.print(f"{self.stage}: going on from checkpoint {path.name}")
                return state
            self.accelerator.print(
                f"{self.stage}: checkpoint {path.name} is not used: {reason or 'see other process'}"
            )
            if self.wanted != "latest":
                raise InputError(f"--resume_from_checkpoint {self.wanted} cannot be used: {reason}")
            self.model.load_state_dict(initial)
        self.accelerator.print(f"{self.stage}: no usable checkpoint; starting the stage again")
        self._forget_after(None)
        return None

    def _forget_after(self, path: Path | None):
        """Delete those after the one that was loaded: the run will write them again, and they must not seem newest."""
        if self.accelerator.is_main_process:
            for other in self.paths():
                if path is None or other.name > path.name:
                    shutil.rmtree(other, ignore_errors=True)
        self.accelerator.wait_for_everyone()

    def _candidates(self) -> list[Path]:
        paths = self.paths()
        if self.wanted != "latest":
            paths = [p for p in paths if p.name == Path(self.wanted).name]
        return paths

    def _load_one(self, path: Path, ema) -> dict:
        check_manifest(path)
        if pickles := [p.name for p in path.glob("random_states*")]:
            raise Damaged(f"{pickles[0]} is a pickled random state, which no checkpoint of ours holds")
        state = json.loads((path / STATE_NAME).read_text(encoding="utf-8"))
        if state["stage"] != self.stage or f"{self.stage}-{state['update']:08d}" != path.name:
            raise Damaged(f"{STATE_NAME} belongs to another checkpoint")
        average = load_file(path / EMA_NAME) if ema is not None else {}
        if (path / GROUPS_NAME).exists():
            load_whole(self.model, self.optimizer, path)
        else:
            self.accelerator.load_state(str(path))
        restore_scale(self.accelerator, state.get("loss_scale"))
        if ema is not None:
            tensors = [average[name] for name in sorted(average)]
            if [t.shape for t in tensors] != [p.shape for p in ema.shadow_params]:
                raise Damaged(f"{EMA_NAME} does not fit the model")
            for own, saved in zip(ema.shadow_params, tensors):
                fill(own, saved)
            ema.optimization_step = state["update"]
        return state

    def _all_agree(self, mine: bool) -> bool:
        flag = torch.tensor(float(mine), device=self.accelerator.device)
        return self.accelerator.reduce(flag, "sum").item() == self.accelerator.num_processes
