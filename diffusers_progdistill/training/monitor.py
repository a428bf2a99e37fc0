"""What a person watches: progress bar, metrics.jsonl and trackers, fed once a logging interval."""

import json
import time
from pathlib import Path

from accelerate import Accelerator
from tqdm.auto import tqdm

from ..disk import replace_file, writing
from ..objectives.stage import Stage
from .trackers import Rows


class Monitor:
    """
    What the stages of a run show and write of their updates: nothing without a folder for `metrics.jsonl`. The time
    left goes by the forward passes of the whole chain and of the stages that were done before.
    """

    def __init__(self, accelerator: Accelerator, folder: Path | None, total_passes: int, done_passes: int = 0) -> None:
        self.accelerator, self.folder = accelerator, folder
        self.total_passes, self.done_passes = total_passes, done_passes
        self.began, self.passes_here, self.paused = time.perf_counter(), 0, 0.0
        self.rows = Rows(accelerator)

    def start(self, stage: Stage, number: int, count: int, batch_size: int, updates_before: int = 0) -> None:
        """A stage begins: the `number`-th of `count`. Those before it have at most so many updates together."""
        self.updates_before = updates_before
        self.stage, self.batch_size = stage, batch_size
        self.label = f"stage {number}/{count} {stage.name}"
        self.logged_at, self.logged_update = time.perf_counter(), 0
        self.bar = tqdm(
            total=stage.updates,
            desc=self.label,
            unit="update",
            disable=self.folder is None or not self.accelerator.is_local_main_process,
            mininterval=0.5,
            bar_format="{desc}: {percentage:3.0f}%|{bar:20}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]",
        )

    def resume(self, first_update: int) -> None:
        """The stage goes on after this many updates; what was logged of later ones is forgotten."""
        self.logged_at, self.logged_update = time.perf_counter(), first_update
        self.bar.update(first_update)
        self.done_passes += first_update * self.stage.passes_per_update
        if self.folder is not None and self.accelerator.is_main_process:
            forget_lines(self.folder / "metrics.jsonl", self.stage.name, first_update)

    def on_update(self) -> None:
        """An update is made; called by every process."""
        self.bar.update()
        self.passes_here += self.stage.passes_per_update

    def on_log(self, stage: Stage, update: int, loss: float | None, learning_rate: float, skipped: int = 0) -> None:
        """Write one line of metrics; called on logging updates by every process."""
        now = time.perf_counter()
        images_per_second = (update - self.logged_update) * self.batch_size / max(now - self.logged_at, 1e-9)
        self.logged_at, self.logged_update = now, update
        spent = now - self.began - self.paused
        left = spent / self.passes_here * max(self.total_passes - self.done_passes - self.passes_here, 0)
        shown = "not finite" if loss is None else f"{loss:.4g}"
        whole = f"whole chain {tqdm.format_interval(left)} left"
        self.bar.set_postfix_str(f"loss {shown}, {images_per_second:.0f} images/s, {whole}")
        values = {"loss": loss, "learning_rate": learning_rate, "images_per_second": round(images_per_second, 1)}
        if skipped:
            values["skipped_updates"] = skipped
        if self.folder is not None and self.accelerator.is_main_process:
            line = {"stage": stage.name, "update": update, **values}
            path = self.folder / "metrics.jsonl"
            with writing(path), open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            self.rows.add({f"{stage.name}/{k}": v for k, v in values.items()}, self.updates_before + update)

    def finish(self) -> None:
        """The stage has ended."""
        self.bar.close()


def forget_lines(path: Path, stage_name: str, after: int) -> None:
    """Drop the lines of a stage's updates after a number, and what a crash left of a half-written one."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
            if entry["stage"] != stage_name or entry["update"] <= after:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            continue
    replace_file(path, lambda temporary: temporary.write_text("".join(kept), encoding="utf-8"))
