"""Pictures and figures of a chain, drawn and measured as it grows."""

import time

from accelerate import Accelerator

from ..data import ImageData
from ..evaluation.figures import Evaluation, EvaluationSettings, Subject
from ..evaluation.metrics import load_metrics
from ..evaluation.pictures import save_curve, save_rows
from ..evaluation.samplers import SamplingOptions
from ..evaluation.sampling import sample_chunk
from ..evaluation.store import format_table, summarize_rows
from ..objectives.stage import Stage
from ..pipelines.pipeline_progressive_distillation import ProgressiveDistillationPipeline
from ..record import Record
from .config import DistillationConfig
from .run import Teacher


# Steps at which a teacher's own curve is flat: the reference of every evaluation, unless it has steps of its own.
REFERENCE_STEPS = 256
GRID_COLUMNS = 12


class Report:
    """Pictures and figures of a chain as it grows. All processes make the images, the main one measures and draws."""

    def __init__(
        self, config: DistillationConfig, record: Record, data: ImageData, teacher: Teacher, accelerator: Accelerator
    ) -> None:
        began = time.perf_counter()
        self.config, self.record, self.is_main = config, record, accelerator.is_main_process
        self.teacher, self.guidance_scale = teacher.model.pipeline, teacher.guidance_scale
        self.pictures, self.rows, self.evaluation = [], [], None
        self._add_pictures("teacher", self.teacher, config.start_steps)
        if config.eval_images:
            metrics = load_metrics(config, config.feature_extractor, config.eval_images, data, accelerator)
            settings = EvaluationSettings(
                config.eval_images, batch_size=config.eval_batch_size, cache_dir=config.cache_dir, has_bar=False
            )
            self.evaluation = Evaluation(record.folder, accelerator, metrics, settings)
        self._measure("teacher", self.teacher, self.teacher.num_trained_steps or REFERENCE_STEPS)
        self.seconds = time.perf_counter() - began

    def _guide(self, pipeline: ProgressiveDistillationPipeline) -> float:
        # Only the teacher is still guided from outside.
        return self.guidance_scale if pipeline is self.teacher else 1.0

    def _add_pictures(self, name: str, pipeline: ProgressiveDistillationPipeline, steps: int) -> None:
        if self.is_main:
            options = SamplingOptions(steps, guidance_scale=self._guide(pipeline))
            label = f"{name}, {steps} steps" if name else f"{steps} step{'s' * (steps > 1)}"
            self.pictures.append((label, sample_chunk(pipeline, options, 0, GRID_COLUMNS)))

    def _measure(self, name: str, pipeline: ProgressiveDistillationPipeline, steps: int) -> None:
        if self.evaluation is not None:
            subject = Subject(name, pipeline, [steps], guidance_scale=self._guide(pipeline))
            self.rows += [row for row in self.evaluation.run([subject]) if row not in self.rows]

    def add_student(self, stage: Stage, pipeline: ProgressiveDistillationPipeline) -> float:
        """Add a finished student or converted teacher; returns the seconds it took, which are not training."""
        began = time.perf_counter()
        if stage.num_steps:
            self._add_pictures("", pipeline, stage.num_steps)
            self._measure(stage.name, pipeline, stage.num_steps)
            self._measure("teacher", self.teacher, stage.num_steps)
        else:
            self._add_pictures("converted", pipeline, self.config.start_steps)
            self._measure("converted", pipeline, REFERENCE_STEPS)
        if self.is_main:
            save_rows(self.pictures, self.record.folder / "samples.png", self._name_columns())
        if self.rows:
            save_curve(summarize_rows(self.rows), self.record.folder)
        seconds = time.perf_counter() - began
        self.seconds += seconds
        return seconds

    def _name_columns(self) -> list[str]:
        """The class of each column of samples.png, if there are classes."""
        known, names = self.teacher.known_labels, self.record.content["about"]["model"].get("class_names", [])
        if known is None:
            return []
        shown = [known[k % len(known)] for k in range(GRID_COLUMNS)]
        return [names[label] if label < len(names) else str(label) for label in shown]

    def finish(self) -> None:
        """Print the table."""
        if self.rows:
            print(format_table(summarize_rows(self.rows)))
        training = sum(stage["seconds"] for stage in self.record.content["stages"])
        folder = self.record.folder
        print(f"training {training:.0f} s, evaluation {self.seconds:.0f} s; pictures and students are in {folder}")
