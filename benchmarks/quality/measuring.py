"""What the scripts that compare many small runs on the digits share: figures that are kept, and their table."""

from pathlib import Path

from accelerate import Accelerator

from diffusers_progdistill.data import load_digits
from diffusers_progdistill.evaluation.figures import Evaluation, EvaluationSettings, Subject
from diffusers_progdistill.evaluation.metrics import ImageMetrics
from diffusers_progdistill.evaluation.sampling import generate
from diffusers_progdistill.evaluation.store import format_table, summarize_rows
from diffusers_progdistill.pipelines.pipeline_progressive_distillation import ProgressiveDistillationPipeline


class Clipping(ProgressiveDistillationPipeline):
    """The paper's sampler: x is clipped in every step, and the noise it implies recomputed."""

    def __call__(self, *arguments, **options):
        self.scheduler.register_to_config(clip_sample=True)
        return super().__call__(*arguments, use_clipped_model_output=True, **options)


class DigitFigures:
    """
    Figures of many models in one `evaluation.json`; a script that was stopped goes on where it was.

    Args:
        folder (`Path`): Where it is written.
        num_images (`int`), seeds (`list[int]`): Of each figure.
    """

    def __init__(self, folder: Path, num_images: int, seeds: list[int]):
        folder.mkdir(parents=True, exist_ok=True)
        metrics = {"classifier": ImageMetrics(load_digits(), num_images=num_images)}
        settings = EvaluationSettings(num_images, tuple(seeds))
        self.evaluation, self.rows = Evaluation(folder, Accelerator(cpu=True), metrics, settings), []

    def add(
        self,
        name: str,
        folder: Path,
        steps: list[int],
        samplers: list[str] = ("progdistill",),
        kind: type = ProgressiveDistillationPipeline,
    ):
        """Measure the model in a folder; one whose images are not finite is said to diverge."""
        pipeline = kind.from_pretrained(folder)
        pipeline.unet.eval().requires_grad_(False)
        if not generate(pipeline, 50, steps[0]).isfinite().all():
            print(f"{name}: diverges", flush=True)
            return
        subject = Subject(name, pipeline, steps, list(samplers))
        self.rows += self.evaluation.run([subject])

    def show(self):
        """Print everything that was added."""
        print(format_table(summarize_rows(self.rows)), flush=True)
