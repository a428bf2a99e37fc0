"""The figures of models x samplers x steps x seeds, measured one after the other, each kept at once."""

import contextlib
import itertools
import json
import sys
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from accelerate.utils import broadcast_object_list
from filelock import FileLock
from tqdm.auto import tqdm

from ..disk import write_json, writing
from ..errors import InputError
from ..identity import model_key
from ..record import versions
from .cache import content_key, store, stored
from .distances import psnr_of_each
from .images import as_bytes
from .samplers import OWN
from .sampling import chunk_size, generate_shared, parts_of
from .summary import read_content


# Images of the reference that are kept in one file, in chunks: some minutes' work.
PORTION_CHUNKS = 4
LOCK_NAME = ".evaluation.lock"


@dataclass
class Subject:
    """
    A model to measure.

    Attributes:
        name (`str`): What the tables call it.
        pipeline ([`ProgressiveDistillationPipeline`]): The model.
        steps (`list[int]`): Numbers of sampling steps.
        samplers (`list[str]`): See [`SAMPLERS`].
        guidance_scale (`float`): Of a teacher that is guided from outside.
    """

    name: str
    pipeline: object
    steps: list[int]
    samplers: list[str] = field(default_factory=lambda: [OWN])
    guidance_scale: float = 1.0

    @cached_property
    def weights(self) -> str:
        """A name of the weights and of what is done with them, so that no figures of others are taken for theirs."""
        pipeline, known = self.pipeline, self.pipeline.known_labels
        # All classes are what figures of older releases have.
        drawn = [] if known is None or len(known) == pipeline.num_classes else [json.dumps(known)]
        return model_key(pipeline.unet, pipeline.scheduler, *drawn)


class Evaluation:
    """
    The figures of one folder, measured where they are missing.

    Args:
        path (`Path`): The `evaluation.json`; what it holds of the same weights and settings is not measured again.
        accelerator ([`~accelerate.Accelerator`]): The processes; all make images, the main one measures.
        metrics (`dict[str, ImageMetrics]`): By extractor; empty in all processes but the main one.
        num_images (`int`), seeds (`list[int]`): How many images, and of which noise; several seeds give a range.
        reference (`tuple[Subject, int]`, *optional*): Whose images, at how many steps, agreement is measured with.
        batch_size (`int`, defaults to 500): See [`generate_shared`].
        cache_dir (`str`, *optional*): Where the images of the reference are kept, which take longest to make.

    Raises:
        [`InputError`]: If the file holds figures of other real images, or of other features of the same name.
    """

    def __init__(
        self,
        path: Path,
        accelerator,
        metrics,
        num_images: int,
        seeds: list[int],
        reference=None,
        batch_size=500,
        cache_dir=None,
    ):
        self.cache_dir = cache_dir
        self.path, self.accelerator, self.metrics = path, accelerator, metrics
        self.num_images, self.seeds, self.reference, self.batch_size = num_images, seeds, reference, batch_size
        self.rows, self.other_floors, self._reference_seed = [], [], None
        self.reference_name = None if reference is None else f"{reference[0].name}, {reference[1]} steps"
        if accelerator.is_main_process:
            self._read()
            self._check_neighbours()

    def _read(self):
        """What the file holds by now."""
        if self.path.exists():
            content = read_content(self.path)
            self.rows, self.other_floors = content["results"], content["floors"]
            self.reference_name = self.reference_name or content.get("reference")

    def _check_neighbours(self):
        """Figures of other images or features would stand beside the new ones as if they could be compared."""
        for metric in self.metrics.values():
            for row in self.rows:
                if row.get("real_images") != metric.data_key:
                    raise InputError(f"{self.path} holds figures of other real images: give another --output_dir")
                if row["metric"] == metric.name and row["real_features"] != metric.key:
                    raise InputError(
                        f"{self.path} holds {metric.name} of other weights of that name: give another --output_dir"
                    )

    def run(self, subjects: list[Subject]) -> list[dict]:
        """Measure everything, and return the summaries of what was asked for, see [`summaries`]."""
        asked = []
        cells = [(s, sampler, n) for s in subjects for sampler in s.samplers for n in s.steps]
        total = self.num_images * len(cells) * len(self.seeds)
        with tqdm(total=total, unit="image", disable=not self.accelerator.is_main_process, file=sys.stderr) as bar:
            for seed in self.seeds:
                # One seed after the other, so that what was asked first is there first.
                for subject, sampler, steps in cells:
                    bar.set_description(f"{subject.name}, {sampler}, {steps} steps, seed {seed}")
                    asked += self._cell(subject, sampler, steps, seed, bar)
        return asked

    def _cell(self, subject: Subject, sampler: str, steps: int, seed: int, bar) -> list[dict]:
        """One model, sampler, number of steps and seed: a row for each extractor."""
        cell = self._key_of(subject, sampler, steps, seed)
        known = {row["feature_extractor"]: row for row in self.rows if _is_of(row, cell)}
        missing = [name for name in self.metrics if name not in known]
        if not self._agreed(bool(missing)):
            bar.update(self.num_images)
            return [known[name] for name in self.metrics]
        measured = self._measure(subject, sampler, steps, seed, missing, bar)
        for name, own in measured.items():
            known[name] = {**cell, **self._extractor_key(name), "metric": self.metrics[name].name, **own}
        if self.accelerator.is_main_process:
            self._keep(cell, [known[name] for name in missing])
        return [known[name] for name in self.metrics]

    def _measure(self, subject: Subject, sampler: str, steps: int, seed: int, names, bar) -> dict[str, dict]:
        """The figures by extractor. The images are looked at part by part, as they are made, and then forgotten."""
        is_reference = self.reference is not None and sampler == OWN
        is_reference = is_reference and _same_images((subject, steps), self.reference)
        self._make_reference(seed)
        with contextlib.ExitStack() as stack:
            features = {name: stack.enter_context(self.metrics[name].collect()) for name in names}
            decibels = []
            for portions in self._parts(subject.pipeline):
                images = reference = self._images_of_reference(portions, seed)
                if is_reference:
                    bar.update(sum(count for _, count in portions))
                else:
                    images = self._make(subject, sampler, steps, seed, bar, portions)
                for own in features.values():
                    own.add(images)
                if reference is not None:
                    decibels.append(psnr_of_each(images, reference))
            agreement = {"psnr_to_reference": torch.cat(decibels).mean().item()} if decibels else {}
            return {name: {**self.metrics[name].measure(own), **agreement} for name, own in features.items()}

    def _extractor_key(self, name: str) -> dict:
        metric = self.metrics[name]
        return {"feature_extractor": name, "real_features": metric.key, "real_images": metric.data_key}

    def _is_stale(self, row: dict, cell: dict) -> bool:
        """Whether a row is of the model before it was trained again, or of the same images with another reference."""
        if row["model"] != cell["model"]:
            return False
        if row["weights"] != cell["weights"]:
            return True
        same = all(row.get(key) == value for key, value in cell.items() if key != "reference")
        other_reference = "reference" in cell and row.get("reference") != cell["reference"]
        return same and other_reference and row["feature_extractor"] in self.metrics

    def _key_of(self, subject: Subject, sampler: str, steps: int, seed: int) -> dict:
        return {
            "model": subject.name,
            "weights": subject.weights,
            "sampler": sampler,
            "num_inference_steps": steps,
            "guidance_scale": subject.guidance_scale,
            "num_images": self.num_images,
            "seed": seed,
            # Agreement is with these.
            **self._reference_key(),
        }

    def _reference_key(self) -> dict:
        if self.reference is None:
            return {}
        subject, steps = self.reference
        guided = f", guided {subject.guidance_scale:g}" if subject.guidance_scale != 1 else ""
        return {"reference": f"{subject.weights}, {steps} steps{guided}"}

    def _agreed(self, value: bool) -> bool:
        """The main process's answer, since it alone knows what is measured."""
        return broadcast_object_list([value])[0]

    def _make(self, subject: Subject, sampler: str, steps: int, seed: int, bar, portions) -> torch.Tensor:
        first, count = portions[0][0], sum(count for _, count in portions)
        options = {"guidance_scale": subject.guidance_scale, "sampler": sampler, "bar": bar, "first": first}
        asked = (count, steps, seed, self.batch_size)
        return as_bytes(generate_shared(self.accelerator, subject.pipeline, *asked, **options))

    def _parts(self, pipeline) -> list[list[tuple[int, int]]]:
        """
        First image and number of images of the portions in which a reference is kept, some chunks each; together those
        that are made before they are looked at.
        """
        size = PORTION_CHUNKS * chunk_size(pipeline.latents_shape(1)[1:], pipeline.device)
        parts = parts_of(self.accelerator, pipeline, self.num_images, self.batch_size, least=PORTION_CHUNKS)
        return [
            [(first, min(size, start + count - first)) for first in range(start, start + count, size)]
            for start, count in parts
        ]

    def _make_reference(self, seed: int):
        """Have the images of the reference made once for all that is compared with them."""
        if self.reference is None or self._reference_seed == seed:
            return
        subject, steps = self.reference
        # They may take longer than everything that is compared with them.
        label = f"to compare with: {subject.name}, {steps} steps, seed {seed}"
        silent = not self.accelerator.is_main_process
        with tqdm(total=self.num_images, desc=label, unit="image", leave=False, disable=silent) as own:
            for portion in itertools.chain(*self._parts(subject.pipeline)):
                self._portion_of_reference(*portion, seed, own)
        self._reference_seed = seed

    def _images_of_reference(self, portions, seed: int) -> torch.Tensor | None:
        """From the cache; the processes that measure nothing do without."""
        if self.reference is None:
            return None
        silent = tqdm(disable=True)
        images = [self._portion_of_reference(*portion, seed, silent) for portion in portions]
        return torch.cat(images) if self.accelerator.is_main_process else None

    def _portion_of_reference(self, first: int, count: int, seed: int, bar) -> torch.Tensor | None:
        """From the cache, or made and kept there, so that one who stops in between loses little."""
        subject, steps = self.reference
        # They are a figure's images too, whose last digits another torch may change.
        made_by = (versions()["torch"], self.accelerator.device.type)
        key = content_key("images", *made_by, subject.weights, steps, subject.guidance_scale, first, count, seed)
        kept = stored(key, self.cache_dir) if self.accelerator.is_main_process else None
        if self._agreed(kept is not None):
            bar.update(count)
            return None if kept is None else kept["images"]
        images = self._make(subject, OWN, steps, seed, bar, [(first, count)])
        if self.accelerator.is_main_process:
            store(key, {"images": images}, self.cache_dir)
        return images

    @property
    def floors(self) -> dict[str, dict[str, float]]:
        """The figures of real images against real images, by metric."""
        return {m.name: m.measure_floor() for m in self.metrics.values()}

    def _keep(self, cell: dict, made: list[dict]):
        """Add rows of a cell to the file, in place of what they make stale; others may measure into it meanwhile."""
        names = {row["feature_extractor"] for row in made}
        with writing(self.path), FileLock(self.path.with_name(LOCK_NAME)):
            self._read()
            kept = [row for row in self.rows if not self._is_stale(row, cell)]
            self.rows = [row for row in kept if not (_is_of(row, cell) and row["feature_extractor"] in names)] + made
            self._write()

    def _write(self):
        """All figures, with what else a reader must know."""
        reference = {"reference": self.reference_name} if self.reference_name else {}
        # Small sets lie further apart, so a floor belongs to a number of images.
        floors = [{"metric": name, "num_images": self.num_images, **floor} for name, floor in self.floors.items()]
        mine = {(floor["metric"], floor["num_images"]) for floor in floors}
        others = {(row["metric"], row["num_images"]) for row in self.rows} - mine
        floors += [floor for floor in self.other_floors if (floor["metric"], floor["num_images"]) in others]
        content = {"floors": floors, **reference, "versions": versions(), "results": self.rows}
        write_json(self.path, content)


def _is_of(row: dict, cell: dict) -> bool:
    return {k: row.get(k) for k in cell} == cell


def _same_images(a: tuple[Subject, int], b: tuple[Subject, int]) -> bool:
    """Whether two models, each with its sampling steps, are one, by whatever names they were given."""
    (one, steps), (other, other_steps) = a, b
    return steps == other_steps and (one.weights, one.guidance_scale) == (other.weights, other.guidance_scale)
