"""chain.json: what was run, with which settings and versions, and what it cost. Written so that it is never half."""

import contextlib
import json
import platform
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from filelock import FileLock, Timeout

from . import __version__
from .disk import NOT_SUPPORTED, find_system_reason, say_once, write_json, writing
from .errors import DiskError, InputError


RECORD_NAME = "chain.json"
# Of what a record holds; a run of another format is not resumed.
FORMAT = 2
STAGE_NAME = re.compile(r"teacher|steps-[0-9]+")
# What a crash in the very first write may leave.
LEFTOVER = f".{RECORD_NAME}.tmp.json"
LOCK_NAME = ".lock"
# What the teacher is by its content, and the options that only say where it lies.
TEACHER_KEY = "teacher_key"
TEACHER_PLACE = ("pretrained_teacher_model", "revision", "variant", "trust_remote_code")


def list_versions() -> dict[str, str]:
    """Versions of what shapes the numbers."""
    found = {"diffusers_progdistill": __version__, "python": platform.python_version()}
    for name in ("torch", "diffusers", "accelerate", "numpy"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def read_record(folder: Path, what: str, advice: str) -> dict:
    """What the `chain.json` of a folder holds, which a message calls `what`."""
    try:
        content = json.loads((folder / RECORD_NAME).read_text(encoding="utf-8"))
        content["settings"].items(), content["finished"]
        is_known = all(STAGE_NAME.fullmatch(stage["name"]) for stage in content["stages"])
    except (ValueError, KeyError, AttributeError, TypeError, OSError):
        is_known = False
    if not is_known:
        raise InputError(f"{what} holds no readable {RECORD_NAME}: {advice}")
    if content.get("format") != FORMAT:
        raise InputError(f"{what} holds a run of an earlier version: {advice}")
    return content


def read_begun(folder: Path) -> dict | None:
    """The record of the run that an output folder holds, if any."""
    is_there = (folder / RECORD_NAME).exists()
    return read_record(folder, f"--output_dir {folder}", "give a new folder") if is_there else None


def read_finished(folder: Path, given: str | None) -> dict:
    """The record of a folder that a command is given, which must hold finished students."""
    advice = "give the OUTPUT_DIR of `progdistill distill`"
    if given is None:
        raise InputError("give the folder first, the OUTPUT_DIR of `progdistill distill`")
    content = drop_missing_stages(folder, read_record(folder, given, advice))
    if not list_students(content) or "about" not in content:
        raise InputError(f"{given} holds no finished student: {advice}")
    return content


def drop_missing_stages(folder: Path, content: dict) -> dict:
    """A record's content without the stages whose model is not there."""
    there = [stage for stage in content["stages"] if (folder / stage["name"] / "model_index.json").exists()]
    return {**content, "stages": there}


def format_hardware(hardware: dict) -> str:
    """What a run used, in one line, of the `"hardware"` of its record."""
    count = hardware["num_processes"]
    kind = "FSDP 2, parameters sharded" if hardware["sharded"] else "DDP" if count > 1 else ""
    processes = f"{count} process{'es' if count > 1 else ''} on {hardware['device']}{f' ({kind})' if kind else ''}"
    names = ("mixed_precision", "gradient_accumulation_steps", "dynamo_backend")
    return ", ".join([processes, *(f"{name} {hardware[name]}" for name in names)])


def list_students(content: dict) -> list[dict]:
    """The finished distillation stages of a record; a converted teacher is none."""
    return [s for s in content["stages"] if "num_inference_steps" in s]


@contextlib.contextmanager
def only_process_in(folder: Path, name: str = LOCK_NAME, timeout: float = 0) -> Iterator[None]:
    """
    Hold the lock of an output folder, so that no two runs write there; do without where a file system has none.
    A `timeout` of -1 waits for it.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        # A lock that ends with its process: filelock's replacement where there is none would refuse a resumed run.
        lock = FileLock(folder / name, fallback_to_soft=False)
    try:
        lock.acquire(timeout=timeout)
    except Timeout as error:
        raise InputError(
            f"--output_dir {folder} is in use by another process: wait for it, or give another"
        ) from error
    except OSError as error:
        # A file that cannot be made ends the run; a lock that the file system does not have only protects it.
        if not Path(lock.lock_file).exists() or error.errno not in NOT_SUPPORTED:
            raise DiskError(f"{lock.lock_file} could not be written: {find_system_reason(error)}") from error
        say_once("lock", f"the file system of {folder} has no locks: make sure that no other run writes there")

    try:
        yield
    finally:
        lock.release()


class Record:
    """
    The record of one output folder, which may not exist yet. One that holds something else, or a run with other
    settings (all that changes the weights, as JSON values), is refused.
    """

    def __init__(self, folder: Path, settings: dict, own_names: tuple[str, ...] = ()) -> None:
        self.folder, self.path = folder, folder / RECORD_NAME
        settings = json.loads(json.dumps(settings))
        if folder.exists() and not folder.is_dir():
            raise InputError(f"--output_dir {folder} is a file: give a folder")
        begun = read_begun(folder)
        if begun is not None:
            self.content = begun
            self._compare(settings)
            return
        own_names = (*own_names, LEFTOVER, LOCK_NAME)
        if folder.exists() and (foreign := [p.name for p in folder.iterdir() if p.name not in own_names]):
            raise InputError(
                f"--output_dir {folder} holds something else ({', '.join(sorted(foreign)[:3])}): give a new folder"
            )
        self.content = {"format": FORMAT, "settings": settings, "versions": list_versions()}
        self.content |= {"stages": [], "finished": False}

    def _compare(self, settings: dict) -> None:
        """Refuse settings that are not the run's; its teacher may lie elsewhere by now."""
        old = self.content["settings"]
        if TEACHER_KEY in old and TEACHER_KEY in settings:
            if old[TEACHER_KEY] != settings[TEACHER_KEY]:
                raise InputError(
                    f"--pretrained_teacher_model {settings[TEACHER_PLACE[0]]} is not the teacher of the run in"
                    f" {self.folder}, whose weights or schedule were others: give that one, or a new --output_dir"
                )
            old = self.content["settings"] = {**old, **{k: settings[k] for k in TEACHER_PLACE if k in settings}}
        changed = [name for name in sorted({*old, *settings}) if old.get(name) != settings.get(name)]
        if changed:
            changes = "; ".join(f"--{name} {old.get(name)} -> {settings.get(name)}" for name in changed)
            raise InputError(
                f"--output_dir {self.folder} holds a run with other settings ({changes}): give a new folder"
            )

    @property
    def finished(self) -> bool:
        """Whether every stage is done."""
        return self.content["finished"]

    def stage(self, name: str) -> dict | None:
        """The entry of a finished stage whose folder is there, else `None`."""
        stages = drop_missing_stages(self.folder, self.content)["stages"]
        return next((stage for stage in stages if stage["name"] == name), None)

    def add_stage(self, entry: dict) -> None:
        """Add or replace a finished stage."""
        kept = [s for s in self.content["stages"] if s["name"] != entry["name"]]
        self.content["stages"] = [*kept, entry]
        self.write()

    def update(self, **values) -> None:
        """Set top-level entries."""
        self.content.update(values)
        self.write()

    def write(self) -> None:
        """Write it to its folder, which is made if need be."""
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.path, self.content)
