"""The figures of models x samplers x steps x seeds, measured one after the other, each kept at once."""

import itertools
import json
import sys
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from tqdm.auto import tqdm

from ..errors import InputError
from ..identity import content_key, model_key
from ..pipelines.pipeline_progressive_distillation import ProgressiveDistillationPipeline
from .cache import cached
from .distances import compute_psnr
from .images import as_bytes
from .metrics import ImageMetrics
from .samplers import OWN, SamplingOptions
from .sampling import chunk_size, generate_shared, sample_chunk, split_parts
from .store import FILE_NAME, keep_rows, read_rows


@dataclass
class Subject:
    """A model to measure, with each of its samplers and numbers of steps; `name` is what the tables call it."""

    name: str
    pipeline: ProgressiveDistillationPipeline
    steps: list[int]
    samplers: list[str] = field(default_factory=lambda: [OWN])
    # Of a teacher that is guided from outside.
    guidance_scale: float = 1.0

    @cached_property
    def weights(self) -> str:
        """A name of the weights and of what is done with them, so that no figures of others are taken for theirs."""
        known = self.pipeline.known_labels
        labels = [] if known is None else [json.dumps(known)]
        return model_key(self.pipeline.denoiser.network, self.pipeline.scheduler, *labels)


@dataclass(frozen=True)
class EvaluationSettings:
    """How everything in one evaluation is measured."""

    num_images: int
    # Of the noise; several give a range.
    seeds: tuple[int, ...] = (0,)
    # Images that are made before the processes gather them.
    batch_size: int = 500
    # Where the images of the reference are kept, which take longest to make.
    cache_dir: str | None = None
    has_bar: bool = True


class Evaluation:
    """
    The figures of one folder, measured where its `evaluation.json` has none of the same weights and settings. All
    processes make images, the main one measures.

    Args:
        metrics (`dict[str, ImageMetrics]`): By extractor; empty in all processes but the main one.
        reference ([`Subject`], *optional*): Whose images, at its only number of steps, agreement is measured with.
    """

    def __init__(
        self,
        folder: Path,
        accelerator: Accelerator,
        metrics: dict[str, ImageMetrics],
        settings: EvaluationSettings,
        reference: Subject | None = None,
    ) -> None:
        self.folder, self.accelerator, self.metrics = folder, accelerator, metrics
        self.settings, self.reference = settings, reference
        self.rows = read_rows(folder) if accelerator.is_main_process else []
        what = f"{folder / FILE_NAME} holds"
        # They would stand beside the new ones as if they could be compared.
        for metric, row in itertools.product(metrics.values(), self.rows):
            if row["real_images"] != metric.data_key:
                raise InputError(f"{what} figures of other real images: give another --output_dir, or move it away")
            if row["metric"] == metric.name and row["real_features"] != metric.key:
                raise InputError(f"{what} {metric.name} of other weights of that name: give another --output_dir")

    def run(self, subjects: list[Subject]) -> list[dict]:
        """Measure what is missing, and return the rows of all that was asked for, see [`read_rows`]."""
        asked = []
        cells = [(s, sampler, n) for s in subjects for sampler in s.samplers for n in s.steps]
        total = self.settings.num_images * len(cells) * len(self.settings.seeds)
        silent = not (self.accelerator.is_main_process and self.settings.has_bar)
        with tqdm(total=total, unit="image", disable=silent, file=sys.stderr) as bar:
            # One seed after the other, so that what was asked first is there first.
            for seed, (subject, sampler, steps) in itertools.product(self.settings.seeds, cells):
                bar.set_description(f"{subject.name}, {sampler}, {steps} steps, seed {seed}")
                options = SamplingOptions(steps, seed, subject.guidance_scale, sampler)
                asked += self._fill(subject, options, bar)
        return asked

    def _fill(self, subject: Subject, options: SamplingOptions, bar: tqdm) -> list[dict]:
        """A row for each extractor, from the file or measured and kept there."""
        common = {
            "model": subject.name,
            "weights": subject.weights,
            "sampler": options.sampler,
            "num_inference_steps": options.num_steps,
            "guidance_scale": options.guidance_scale,
            "num_images": self.settings.num_images,
            "seed": options.seed,
        }
        if self.reference is not None:
            common["reference"] = f"{self.reference.weights}, {self._refer(options.seed)}"
        known = {
            row["feature_extractor"]: row
            for row in self.rows
            if all(row.get(key) == value for key, value in common.items())
        }
        missing = [name for name in self.metrics if name not in known]
        # The main process alone knows.
        if not broadcast_object_list([bool(missing)])[0]:
            bar.update(self.settings.num_images)
            return [known[name] for name in self.metrics]
        made = {row["feature_extractor"]: common | row for row in self._measure(subject, options, missing, bar)}
        if made:
            self.rows = keep_rows(self.folder, list(made.values()))
        return [(known | made)[name] for name in self.metrics]

    def _measure(self, subject: Subject, options: SamplingOptions, names: list[str], bar: tqdm) -> list[dict]:
        """The figures by extractor. The images are looked at part by part, as they are made, and then forgotten."""
        settings, decibels = self.settings, []
        size = chunk_size(subject.pipeline)
        features = {name: self.metrics[name].collect() for name in names}
        for part in split_parts(settings.num_images, size, settings.batch_size, self.accelerator.num_processes):
            images = self._make(subject, options, part, bar)
            for own in features.values():
                own.add(images)
            if self.reference is not None:
                others = self._make(self.reference, self._refer(options.seed), part)
                decibels.append(compute_psnr(images, others))
        agreement = {"psnr_to_reference": torch.cat(decibels).mean().item()} if decibels else {}
        return [
            {"feature_extractor": name} | self.metrics[name].describe() | self.metrics[name].measure(own) | agreement
            for name, own in features.items()
        ]

    def _refer(self, seed: int) -> SamplingOptions:
        """How the images of the reference are made."""
        return SamplingOptions(self.reference.steps[0], seed, self.reference.guidance_scale)

    def _make(self, subject: Subject, options: SamplingOptions, part: range, bar: tqdm | None = None) -> torch.Tensor:
        """Images by their numbers, `uint8`. Those of the reference are kept: all others are compared with them."""
        size, reference = chunk_size(subject.pipeline), self.reference
        is_kept = reference is not None and subject.weights == reference.weights
        is_kept = is_kept and options == self._refer(options.seed)
        # They are a figure's images too, whose last digits another torch may change.
        made_by = (torch.__version__, self.accelerator.device.type, subject.weights, options)

        def make_chunk(first: int) -> dict[str, torch.Tensor]:
            return {"images": as_bytes(sample_chunk(subject.pipeline, options, first, size))}

        def take_chunk(first: int) -> torch.Tensor:
            key = content_key("images", *made_by, first, size)
            made = cached(key, lambda: make_chunk(first), self.settings.cache_dir) if is_kept else make_chunk(first)
            if bar is not None:
                bar.update(self.accelerator.num_processes * min(size, self.settings.num_images - first))
            return made["images"]

        return generate_shared(self.accelerator, take_chunk, part, size)
