"""Pictures and figures of a chain, drawn and measured as it grows."""

import time

from ..evaluation.metrics import generate
from ..evaluation.pictures import save_curve, save_rows
from ..record import Record
from .stages import Stage


# Steps at which the teacher's own curve is flat: the reference of every measurement.
REFERENCE_STEPS = 256
GRID_COLUMNS = 12


class Report:
    """Pictures and figures of a chain as it grows."""

    def __init__(self, config, record: Record, data, teacher):
        self.config, self.record, self.teacher = config, record, teacher
        self.rows, self.metric, self.seconds = [], None, 0.0
        began = time.perf_counter()
        start = config.start_steps
        self.rows.append((f"teacher, {start} steps", generate(teacher, GRID_COLUMNS, start)))
        evaluation = record.content.get("evaluation") or {"students": {}, "teacher": {}}
        self.evaluation = evaluation
        if config.eval_images:
            from ..evaluation.metrics import FrechetDistance

            self.metric = FrechetDistance(data, batch_size=config.eval_batch_size)
            evaluation.update(
                metric=self.metric.name,
                feature_extractor=config.feature_extractor,
                num_images=config.eval_images,
                seed=0,
                floor=self.metric.floor,
            )
            self._measure("teacher", teacher, REFERENCE_STEPS)
        self.seconds += time.perf_counter() - began

    def _measure(self, kind: str, pipeline, steps: int):
        figures = self.evaluation[kind]
        if self.metric is not None and str(steps) not in figures:
            images = generate(pipeline, self.config.eval_images, steps, 0, self.config.eval_batch_size)
            figures[str(steps)] = self.metric.distance(images)

    def add_student(self, stage: Stage, pipeline) -> float:
        """Add a finished student; returns the seconds it took, which are not training."""
        began = time.perf_counter()
        self.rows.append(
            (f"{stage.number} step{'s' * (stage.number > 1)}", generate(pipeline, GRID_COLUMNS, stage.number))
        )
        self._measure("students", pipeline, stage.number)
        self._measure("teacher", self.teacher, stage.number)
        save_rows(self.rows, self.record.folder / "samples.png")
        if self.metric is not None:
            self.record.update(evaluation=self.evaluation)
            save_curve(*self._curves(), self.metric.floor, self.metric.name, self.record.folder / "curve.png")
        seconds = time.perf_counter() - began
        self.seconds += seconds
        return seconds

    def _curves(self) -> list[dict[int, float]]:
        return [{int(k): v for k, v in self.evaluation[n].items()} for n in ("students", "teacher")]

    def finish(self):
        """Print the table."""
        folder = self.record.folder
        training = sum(s["seconds"] for s in self.record.content["stages"])
        if self.metric is not None:
            print(self._table(*self._curves()))
        print(f"training {training:.0f} s, evaluation {self.seconds:.0f} s; pictures and students are in {folder}")

    def _table(self, students, teacher) -> str:
        lines = [f"{self.metric.name}, {self.config.eval_images} images, lower is better", ""]
        lines.append(f"{'steps':>6}{'student':>10}{'teacher, DDIM':>16}")
        for steps in sorted(teacher, reverse=True):
            student = f"{students[steps]:.2f}" if steps in students else "-"
            lines.append(f"{steps:>6}{student:>10}{teacher[steps]:>16.2f}")
        return "\n".join([*lines, f"real images, one half against the other: {self.metric.floor:.2f}", ""])
