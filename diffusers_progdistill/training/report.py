"""Pictures and figures of a chain, drawn and measured as it grows."""

import contextlib
import time

from accelerate.utils import broadcast_object_list

from ..evaluation.images import as_bytes, readable
from ..evaluation.pictures import save_curves, save_rows
from ..evaluation.sampling import generate, generate_shared, parts_of
from ..record import Record
from .stages import Stage


# Steps at which a teacher's own curve is flat: the reference of every measurement, unless it has steps of its own.
REFERENCE_STEPS = 256
GRID_COLUMNS = 12


class Report:
    """
    Pictures and figures of a chain as it grows. All processes make the images, the main one measures and draws.

    Args:
        config ([`DistillationConfig`]): What is measured, and with how many images.
        record ([`Record`]): Where the figures are kept; what it holds already is not measured again.
        data ([`ImageData`]): The real images.
        teacher ([`Teacher`]): What the students are compared with, on its own schedule and with its guidance.
        accelerator ([`~accelerate.Accelerator`]): The processes.
    """

    def __init__(self, config, record: Record, data, teacher, accelerator):
        self.config, self.record, self.accelerator = config, record, accelerator
        self.teacher, self.guidance_scale = teacher.pipeline, teacher.guidance_scale
        self.rows, self.metric, self.seconds = [], None, 0.0
        began = time.perf_counter()
        start = config.start_steps
        self._add_row(f"teacher, {start} steps", self.teacher, start)
        evaluation = [record.content.get("evaluation") or {"students": {}, "teacher": {}}]
        # The main process's record decides what is left to do.
        self.evaluation = broadcast_object_list(evaluation)[0]
        measured_as = (self.evaluation.get("num_images"), self.evaluation.get("feature_extractor"))
        if config.eval_images and measured_as != (config.eval_images, config.feature_extractor):
            # Figures of other features or another number of images are no neighbours of the new ones.
            self.evaluation = {"students": {}, "teacher": {}}
        if config.eval_images and accelerator.is_main_process:
            self._make_metric(data)
        self._measure("teacher", self.teacher, self.teacher.num_trained_steps or REFERENCE_STEPS)
        self.seconds += time.perf_counter() - began

    def _make_metric(self, data):
        from ..evaluation.extractors import load_extractor
        from ..evaluation.metrics import ImageMetrics

        config, data = self.config, readable(data)
        options = {"device": self.accelerator.device, "cache_dir": config.cache_dir, "token": config.hub_token}
        extractor = load_extractor(config.feature_extractor, data, **options)
        self.metric = ImageMetrics(data, extractor, config.eval_images, config.cache_dir)
        self.evaluation.update(
            metric=self.metric.name,
            feature_extractor=self.config.feature_extractor,
            num_images=self.config.eval_images,
            seed=0,
            floor=self.metric.floor,
        )

    def _add_row(self, label: str, pipeline, steps: int):
        if self.accelerator.is_main_process:
            options = {"guidance_scale": self._guidance_of(pipeline), "chunk": GRID_COLUMNS}
            self.rows.append((label, generate(pipeline, GRID_COLUMNS, steps, **options)))

    def _guidance_of(self, pipeline) -> float:
        # Only the teacher is still guided from outside.
        return self.guidance_scale if pipeline is self.teacher else 1.0

    def _measure(self, kind: str, pipeline, steps: int):
        figures = self.evaluation.setdefault(kind, {})
        if self.config.eval_images and str(steps) not in figures:
            figures[str(steps)] = self._distance(pipeline, steps)

    def _distance(self, pipeline, steps: int) -> float | None:
        """Frechet distance of a model, in the process that measures; its images are looked at as they are made."""
        count, batch_size = self.config.eval_images, self.config.eval_batch_size
        options = {"batch_size": batch_size, "guidance_scale": self._guidance_of(pipeline)}
        with contextlib.nullcontext() if self.metric is None else self.metric.collect() as features:
            for first, part in parts_of(self.accelerator, pipeline, count, batch_size):
                images = generate_shared(self.accelerator, pipeline, part, steps, first=first, **options)
                if features is not None:
                    features.add(as_bytes(images))
            return None if features is None else self.metric.distance(features)

    def add_student(self, stage: Stage, pipeline) -> float:
        """Add a finished student or converted teacher; returns the seconds it took, which are not training."""
        began = time.perf_counter()
        if stage.number:
            self._add_row(f"{stage.number} step{'s' * (stage.number > 1)}", pipeline, stage.number)
            self._measure("students", pipeline, stage.number)
            self._measure("teacher", self.teacher, stage.number)
        else:
            self._add_row(f"converted, {self.config.start_steps} steps", pipeline, self.config.start_steps)
            self._measure("converted", pipeline, REFERENCE_STEPS)
        if self.accelerator.is_main_process:
            self._draw()
        seconds = time.perf_counter() - began
        self.seconds += seconds
        return seconds

    def _draw(self):
        folder = self.record.folder
        save_rows(self.rows, folder / "samples.png", self._column_names())
        if self.metric is not None:
            self.record.update(evaluation=self.evaluation)
            students, teacher = ({n: [v] for n, v in curve.items()} for curve in self._curves())
            name = self.metric.name
            lines = {"teacher, DDIM": teacher, "students": students}
            save_curves({name: lines}, {name: self.metric.floor}, folder / "curve.png")

    def _column_names(self) -> list[str]:
        """The class of each column of samples.png, if there are classes."""
        known, names = self.teacher.known_labels, self.record.content["about"]["model"].get("class_names", [])
        if known is None:
            return []
        shown = [known[k % len(known)] for k in range(GRID_COLUMNS)]
        return [names[label] if label < len(names) else str(label) for label in shown]

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
        for steps, value in self.evaluation.get("converted", {}).items():
            lines.append(f"converted teacher at {steps} steps: {value:.2f}")
        return "\n".join([*lines, f"real images against other real images: {self.metric.floor:.2f}", ""])
