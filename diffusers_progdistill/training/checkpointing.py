"""
Checkpoints of the stage that is being trained.

A checkpoint is a folder `checkpoints/STAGE-UPDATE`. It holds the whole tensors of each network, average and optimizer
as safetensors, however many processes share them, all else in `state.json`, and a manifest of checksums. It is made
under a temporary name, flushed to disk and renamed: it is there whole or not at all. What is read is checked against
the manifest first, and nothing in it can run code.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file

from ..disk import replace_folder, writing
from ..errors import InputError, describe_reason
from .optimizer import read_scale, restore_scale
from .sharding import place, take_whole


MANIFEST_NAME, STATE_NAME = "manifest.json", "state.json"


class DamagedCheckpoint(Exception):
    """A checkpoint that is not what was written."""


def write_manifest(folder: Path) -> None:
    """Names, sizes and checksums of all files of a folder, in `manifest.json`."""
    entries = {path.name: describe_file(path) for path in sorted(folder.iterdir())}
    (folder / MANIFEST_NAME).write_text(json.dumps({"files": entries}, indent=2), encoding="utf-8")


def describe_file(path: Path) -> dict:
    """The size and the checksum of a file."""
    with open(path, "rb") as file:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def check_manifest(folder: Path, names: set[str]) -> None:
    """Raise [`DamagedCheckpoint`] unless a folder holds files of these names alone, as its manifest describes them."""
    found = {path.name: path for path in folder.iterdir()}
    for name in sorted(names ^ found.keys()):
        raise DamagedCheckpoint(f"{name} is {'missing' if name in names else 'not one of its files'}")
    if links := [name for name, path in found.items() if path.is_symlink()]:
        raise DamagedCheckpoint(f"{links[0]} is a symbolic link")
    entries = json.loads(found.pop(MANIFEST_NAME).read_text(encoding="utf-8"))["files"]
    if entries.keys() != found.keys():
        raise DamagedCheckpoint(f"{MANIFEST_NAME} names other files")
    for name, path in found.items():
        if describe_file(path) != entries[name]:
            raise DamagedCheckpoint(f"{name} has been changed")


class Checkpoints:
    """
    The checkpoints of one stage of an output folder, which all processes write and read together: the newest
    `total_limit` are kept, or all, and `wanted` is resumed from, which may be `"latest"`.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        folder: Path,
        stage: str,
        total_limit: int | None = None,
        wanted: str = "latest",
    ) -> None:
        self.accelerator, self.folder, self.stage = accelerator, folder / "checkpoints", stage
        self.total_limit, self.wanted = total_limit, wanted
        self.modules, self.optimizers, self.averages = {}, {}, {}

    def attach(
        self,
        modules: dict[str, torch.nn.Module],
        optimizers: dict[str, torch.optim.Optimizer],
        averages: dict[str, EMAModel],
    ) -> None:
        """Name what a checkpoint holds, prepared or not. All of it is written, and brought back, by its name."""
        self.modules = {k: self.accelerator.unwrap_model(m, keep_torch_compile=False) for k, m in modules.items()}
        self.optimizers, self.averages = optimizers, averages

    def paths(self) -> list[Path]:
        """Complete checkpoints of this stage, the newest first. (A temporary name is not one.)"""
        pattern = re.compile(rf"{re.escape(self.stage)}-\d{{8,}}")
        found = self.folder.iterdir() if self.folder.is_dir() else []
        return sorted((p for p in found if pattern.fullmatch(p.name)), reverse=True)

    def save(self, update: int, state: dict) -> None:
        """Write a checkpoint after so many updates, with JSON values of the caller's own; called by all processes."""
        state = {
            "stage": self.stage,
            "update": update,
            "loss_scale": read_scale(self.accelerator),
            "averaged": {name: average.optimization_step for name, average in self.averages.items()},
            "groups": {name: optimizer.state_dict()["param_groups"] for name, optimizer in self.optimizers.items()},
            **state,
        }
        if self.accelerator.is_main_process:
            with writing(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
            replace_folder(self.folder / f"{self.stage}-{update:08d}", lambda temporary: self._write(temporary, state))
            superfluous = self.paths()[self.total_limit :] if self.total_limit else []
            self._delete([*superfluous, *self.folder.glob(".*.tmp")])
        else:
            for tensors in self._tensors().values():
                gather(tensors, keep=False)
        self.accelerator.wait_for_everyone()

    def _write(self, folder: Path, state: dict) -> None:
        folder.mkdir()
        for name, tensors in self._tensors().items():
            save_file(gather(tensors, keep=True), folder / name)
        (folder / STATE_NAME).write_text(json.dumps(state), encoding="utf-8")
        write_manifest(folder)

    def _tensors(self) -> dict[str, dict[str, torch.Tensor]]:
        """The tensors of all files, those of sharded parameters as they are held here."""
        tensors = {f"{name}.safetensors": module.state_dict() for name, module in self.modules.items()}
        for name, average in self.averages.items():
            tensors[f"{name}.average.safetensors"] = {str(k): v for k, v in enumerate(average.shadow_params)}
        for name, optimizer in self.optimizers.items():
            tensors[f"{name}.optimizer.safetensors"] = read_moments(optimizer)
        return tensors

    def clear(self) -> None:
        """Delete the checkpoints of this stage, when its student is complete on disk."""
        self._delete(self.paths())
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _delete(self, paths: Iterable[Path]) -> None:
        for path in paths:
            shutil.rmtree(path, ignore_errors=True)

    def load(self) -> dict | None:
        """
        Bring all that is attached, and the loss scale, to the newest checkpoint that is whole, or refuse the one that
        was asked for by name; called by all. Its state with `"update"`, or `None` if there is no usable checkpoint.
        """
        accelerator = self.accelerator
        paths = [path for path in self.paths() if self.wanted == "latest" or path.name == Path(self.wanted).name]
        for path in paths:
            reason = "another process cannot read it"
            try:
                state, tensors = self._read(path)
            except Exception as error:  # a damaged or hostile file may raise anything; that is why it is not used
                reason = describe_reason(error)
                accelerator.set_trigger()
            if not accelerator.check_trigger():
                self._restore(state, tensors)
                self._forget_after(path)
                accelerator.print(f"{self.stage}: going on from checkpoint {path.name}")
                return state
            accelerator.print(f"{self.stage}: checkpoint {path.name} is not used: {reason}")
            if self.wanted != "latest":
                raise InputError(f"--resume_from_checkpoint {self.wanted} cannot be used: {reason}")
        if paths:
            accelerator.print(f"{self.stage}: no usable checkpoint; starting the stage again")
            self._forget_after(None)
        return None

    def _forget_after(self, path: Path | None) -> None:
        """Delete those after the one that was loaded: the run will write them again, and they must not seem newest."""
        if self.accelerator.is_main_process:
            self._delete([other for other in self.paths() if path is None or other.name > path.name])
        self.accelerator.wait_for_everyone()

    def _read(self, path: Path) -> tuple[dict, dict[str, dict[str, torch.Tensor]]]:
        """The state and the tensors of a checkpoint, checked; nothing has changed yet."""
        own = self._tensors()
        check_manifest(path, {*own, STATE_NAME, MANIFEST_NAME})
        state = json.loads((path / STATE_NAME).read_text(encoding="utf-8"))
        if state["stage"] != self.stage or f"{self.stage}-{state['update']:08d}" != path.name:
            raise DamagedCheckpoint(f"{STATE_NAME} belongs to another checkpoint")
        tensors = {name: load_file(path / name) for name in own}
        for name, expected in own.items():
            shapes = {key: tensor.shape for key, tensor in tensors[name].items()}
            # Before its first update an optimizer has no moments.
            if expected and shapes != {key: tensor.shape for key, tensor in expected.items()}:
                raise DamagedCheckpoint(f"{name} does not fit")
        return state, tensors

    @torch.no_grad()
    def _restore(self, state: dict, tensors: dict[str, dict[str, torch.Tensor]]) -> None:
        for name, average in self.averages.items():
            average.optimization_step = state["averaged"][name]
        for name, optimizer in self.optimizers.items():
            restore_moments(optimizer, state["groups"][name], tensors.pop(f"{name}.optimizer.safetensors"))
        own = self._tensors()
        for name, weights in tensors.items():
            for key, value in weights.items():
                own[name][key].copy_(place(value, own[name][key]))
        restore_scale(self.accelerator, state["loss_scale"])


def gather(tensors: dict[str, torch.Tensor], keep: bool) -> dict[str, torch.Tensor]:
    """Copies of the whole tensors where they are to be kept; called by all processes."""
    copies = {}
    for name, tensor in tensors.items():
        # One at a time, so that no device holds more than one whole tensor.
        tensor = take_whole(tensor)
        if keep:
            copies[name] = tensor.detach().to("cpu", copy=True).contiguous()
    return copies


def read_moments(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """What an optimizer knows of each parameter, as `POSITION.NAME`."""
    state = optimizer.state_dict()["state"]
    return {f"{k}.{name}": v for k, values in state.items() for name, v in values.items() if torch.is_tensor(v)}


def restore_moments(optimizer: torch.optim.Optimizer, groups: list[dict], moments: dict[str, torch.Tensor]) -> None:
    """Bring an optimizer to what [`read_moments`] gave, whole."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state = {}
    for key, value in moments.items():
        position, _, name = key.partition(".")
        parameter = parameters[int(position)]
        placed = place(value, parameter) if value.shape == parameter.shape else value
        state.setdefault(int(position), {})[name] = placed
    optimizer.load_state_dict({"state": state, "param_groups": groups})
