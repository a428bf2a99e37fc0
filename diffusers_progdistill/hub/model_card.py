"""The model card of a chain, made afresh from its record: what the model is, how good it is, how to use it."""

import hashlib
import re
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..errors import InputError
from ..evaluation.store import read_rows, summarize_rows
from ..record import hardware_text, list_students


PICTURES = ("samples.png", "curve.png")
TASK = "unconditional-image-generation"
# Settings that name things; they are told in words, and only when they are public.
NOT_IN_TABLE = {
    *("pretrained_teacher_model", "revision", "variant", "dataset_name", "dataset_config_name", "train_data_dir"),
    *("image_column", "class_column"),
}
CITATION = """```bibtex
@inproceedings{salimans2022progressive,
  title={Progressive Distillation for Fast Sampling of Diffusion Models},
  author={Salimans, Tim and Ho, Jonathan},
  booktitle={International Conference on Learning Representations},
  year={2022}
}
```"""


def signed(text: str) -> str:
    """A card with a last line that tells whether anybody has changed it since."""
    return f"{text}\n<!-- diffusers-progdistill card {hashlib.sha256(text.encode()).hexdigest()} -->\n"


def is_untouched(card: str) -> bool:
    """Whether a card is one of ours as it was made."""
    text, mark, _ = card.rpartition("\n<!-- diffusers-progdistill card ")
    return bool(mark) and signed(text) == card


def plain(text) -> str:
    """Text of unknown origin as one line of Markdown that shows it and does nothing else."""
    text = " ".join(str(text).split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]()#|~$!])", r"\\\1", text)


def hub_link(name: str, prefix: str = "") -> str:
    """A link to something on the Hub; only the escaped name if it cannot be a name there."""
    if re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        return f"[{plain(name)}](https://huggingface.co/{prefix}{name})"
    return plain(name)


def steps_text(steps: int) -> str:
    return f"{steps} step{'s' * (steps > 1)}"


class CardOf:
    """
    The card of a chain as it stood when one of its students was finished.

    Args:
        content (`dict`): What `chain.json` holds.
        steps (`int`, *optional*): The student that the card is for; later ones are left out. Default: the last.
        repo_id (`str`, *optional*): Where the chain is published. Default: the local folders are named.
        pictures (`list[str]`): Which of [`PICTURES`] lie beside the card.
        license (`str`): The license in the metadata.
        measured (`list[dict]`): Rows of `progdistill evaluate`, see [`summaries`].
    """

    def __init__(self, content, steps=None, repo_id=None, pictures=(), license="unknown", measured=()):
        students = list_students(content)
        self.steps = steps or students[-1]["num_inference_steps"]
        self.students = [s for s in students if s["num_inference_steps"] >= self.steps]
        self.converted = [s for s in content["stages"] if "num_inference_steps" not in s]
        self.content, self.settings, self.about = content, content["settings"], content["about"]
        self.repo_id, self.pictures, self.license = repo_id, pictures, license
        evaluation = content.get("evaluation") or {}
        self.evaluation = evaluation if str(self.steps) in evaluation.get("students", {}) else None
        names = {"teacher", "converted", *(s["name"] for s in self.students)}
        self.measured = [row for row in measured if row["model"] in names]
        self.name = (repo_id or f"steps-{self.steps}").split("/")[-1]

    # What is said more than once.

    @property
    def conditional(self) -> bool:
        return bool(self.about["model"].get("num_classes"))

    @property
    def known_labels(self) -> list[int]:
        """The labels that the students were trained with."""
        return self.about["model"].get("known_labels") or list(range(self.about["model"]["num_classes"]))

    @property
    def stochastic(self) -> bool:
        """Whether the model is sampled with fresh noise."""
        return bool(self.settings.get("stochastic_sampler"))

    def distance(self, kind: str, steps: int) -> str:
        """A measured distance, or that there is none."""
        value = ((self.content.get("evaluation") or {}).get(kind) or {}).get(str(steps))
        return "not measured" if value is None else f"{value:.2f}"

    def data_name(self) -> str:
        data = self.about["data"]
        if data["source"] == "hub":
            return hub_link(data["name"], "datasets/")
        return {"digits": "scikit-learn's 1,797 handwritten digits", "local": "a local folder"}[data["source"]]

    def teacher_name(self) -> str:
        teacher = self.about["teacher"]
        return hub_link(teacher["name"]) if teacher["source"] == "hub" else "a model in a local folder"

    # The parts of the card.

    def data(self) -> ModelCardData:
        """The metadata block."""
        values = {
            "library_name": "diffusers",
            "pipeline_tag": TASK,
            "tags": ["diffusers", "progressive-distillation", "few-step-diffusion"],
            "license": self.license,
            "model_name": self.name,
            "eval_results": self.results() or None,
        }
        if self.about["data"]["source"] == "hub":
            values["datasets"] = [self.about["data"]["name"]]
        if self.about["teacher"]["source"] == "hub":
            values |= {"base_model": self.about["teacher"]["name"], "base_model_relation": "finetune"}
        return ModelCardData(**values)

    def results(self) -> list[EvalResult]:
        """Every figure that was measured of the students so far, by `progdistill evaluate` or while they were made."""
        students = {s["name"] for s in self.students}
        return [
            self._result(row["metric"], row["num_inference_steps"], figure, row[figure][0], row)
            for row in self.measured
            if row["model"] in students
            for figure in ("frechet_distance", "kernel_distance", "precision", "recall")
        ]

    def _result(self, metric: str, steps: int, figure: str, value: float, source: dict) -> EvalResult:
        """One line of the model index; `source` says with what it was measured."""
        data = self.about["data"]
        names = {"hub": data.get("name"), "digits": "scikit-learn digits", "local": "local folder"}
        kinds = {"hub": data.get("name"), "digits": "digits", "local": "local"}
        told = ("num_images", "seeds")
        return EvalResult(
            task_type=TASK,
            dataset_type=kinds[data["source"]],
            dataset_name=names[data["source"]],
            metric_type=figure,
            metric_name=f"{metric if figure == 'frechet_distance' else f'{figure}, {metric}'}, {steps_text(steps)}",
            metric_value=value,
            metric_args={
                "num_inference_steps": steps,
                "feature_extractor": source.get("feature_extractor", metric),
                **{key: source[key] for key in told},
                "real_vs_real": source["real_vs_real"][figure],
                **({"range": source[figure][1:]} if len(source.get("seeds", [])) > 1 else {}),
            },
        )

    def evaluation_table(self) -> str:
        """What `progdistill evaluate` measured, if it did."""
        lines, groups = [], {}
        for row in self.measured:
            # Only these can be compared.
            groups.setdefault((row["metric"], row["num_images"], tuple(row["seeds"])), []).append(row)
        for (metric, num_images, seeds), rows in groups.items():
            shown = f"seeds {', '.join(map(str, seeds))}: median [range]" if len(seeds) > 1 else f"seed {seeds[0]}"
            lines += [
                f"{plain(metric)}, {num_images:,} images, {shown}.",
                "",
                "| model | sampler | steps | distance | precision | recall |",
                "|---|---|--:|--:|--:|--:|",
            ]
            for row in rows:
                middle, least, greatest = row["frechet_distance"]
                spread = f" [{least:.2f}, {greatest:.2f}]" if len(row["seeds"]) > 1 else ""
                lines.append(
                    f"| {plain(row['model'])} | {plain(row['sampler'])} | {row['num_inference_steps']} |"
                    f" {middle:.2f}{spread} | {row['precision'][0]:.3f} | {row['recall'][0]:.3f} |"
                )
            lines.append("")
        return "\n".join(lines).rstrip()

    def headline(self) -> str:
        model = self.about["model"]
        size = f"{model['resolution']}x{model['resolution']}"
        kind = "class-conditional" if self.conditional else "unconditional"
        lines = [
            f"A diffusion model that makes {kind} {size} images in **{steps_text(self.steps)}**: one network"
            f" evaluation a step, {model['parameters']:,} parameters. Distilled by progressive distillation from"
            f" {self.teacher_name()}, with the images of {self.data_name()}."
        ]
        if scale := self.about.get("guidance_scale"):
            lines.append(
                f"Classifier-free guidance of scale {scale:g} (1 is none) is folded in: its samples are guided, with"
                " one network evaluation a step, and the scale cannot be changed."
            )
        if self.stochastic:
            lines.append(
                "It is sampled with fresh noise in every step but the last (the stochastic sampler of Meng et al.,"
                " 2022): each one jumps over two steps of the grid and goes back one."
            )
        if self.evaluation is None:
            return "\n\n".join([*lines, "**Quality:** not measured."])
        reference = max(int(k) for k in self.evaluation["teacher"])
        at_reference = f"{self.distance('teacher', reference)} at {steps_text(reference)}"
        if reference != self.steps:
            at_reference += f", {self.distance('teacher', self.steps)} at {steps_text(self.steps)}"
        quality = (
            f"**Quality:** {self.evaluation['metric']} {self.distance('students', self.steps)} at"
            f" {steps_text(self.steps)}. Its teacher: {at_reference}. Real images against other real images:"
            f" {self.evaluation['floor']:.2f}. Lower is better;"
            f" {self.evaluation['num_images']:,} images, seed {self.evaluation['seed']}."
        )
        return "\n\n".join([*lines, quality])

    def usage(self) -> str:
        where = self.repo_id or f"steps-{self.steps}"
        labels = f"class_labels={self.known_labels[0]}" if self.conditional else ""
        ours = f"""```python
from diffusers_progdistill import ProgressiveDistillationPipeline
pipe = ProgressiveDistillationPipeline.from_pretrained("{where}")
image = pipe({labels}).images[0]
```"""
        without = f"With `diffusers-progdistill`, since the stock pipelines {self.not_stock()}:\n\n{ours}"
        if self.conditional:
            return f"{without}\n\n{self.classes()}."
        if self.stochastic:
            return without
        return f"""With stock diffusers:

```python
from diffusers import DiffusionPipeline
pipe = DiffusionPipeline.from_pretrained("{where}")
image = pipe(num_inference_steps={self.steps}).images[0]
```

With `diffusers-progdistill`, which knows the number of steps:

{ours}"""

    def classes(self) -> str:
        """The labels that can be asked for, and their names."""
        names, known = self.about["model"].get("class_names", []), self.known_labels
        if known == list(range(len(known))):
            text = f"Classes 0 to {len(known) - 1}"
        else:
            text = "Classes " + ", ".join(map(str, known[:100])) + (", ..." if len(known) > 100 else "")
            text += f" (of {self.about['model']['num_classes']}; the others were not in the training data)"
        names = [names[label] for label in known if label < len(names)]
        if names and names != [str(label) for label in known]:
            shown = ", ".join(plain(n) for n in names[:100]) + (", ..." if len(names) > 100 else "")
            text += f", or by name: {shown}"
        return text

    def not_stock(self) -> str:
        """What stock pipelines lack for this model."""
        return "take no class labels" if self.conditional else "do not have this sampler"

    def table(self) -> str:
        tag = "`revision`" if self.repo_id else "folder"
        metric = (self.content.get("evaluation") or {}).get("metric", "quality")
        rows = [
            f"| steps | {tag} | {metric} | teacher's DDIM at these steps | updates | hours |",
            "|--:|---|--:|--:|--:|--:|",
        ]
        for s in self.students:
            n = s["num_inference_steps"]
            rows.append(
                f"| {n} | `{s['name']}` | {self.distance('students', n)} | {self.distance('teacher', n)} |"
                f" {s['updates']:,} | {s['seconds'] / 3600:.2f} |"
            )
        return "\n".join(rows)

    def show_pictures(self) -> str:
        texts = {
            "samples.png": "Samples: the teacher on top, then each student, the same noise down each column",
            "curve.png": "Distance to real images against sampling steps",
        }
        return "\n\n".join(f"![{texts[p]}]({p})" for p in self.pictures)

    def recipe(self) -> str:
        """A sentence, if the record names one."""
        about = self.about
        if "recipe" not in about:
            return ""
        changes = about.get("recipe_changes") or []
        but = f", except {', '.join(plain(name) for name in changes)}" if changes else ""
        return f" The settings are\nthose of the recipe {plain(about['recipe'])}{but}."

    def training(self) -> str:
        stages = [*self.converted, *self.students]
        units = sum(s["forward_passes"] for s in stages)
        hours = sum(s["seconds"] for s in stages) / 3600
        settings = {k: v for k, v in self.settings.items() if k not in NOT_IN_TABLE and v is not None}
        rows = "\n".join(f"| {plain(k)} | {plain(v)} |" for k, v in sorted(settings.items()))
        versions = ", ".join(f"{plain(k)} {plain(v)}" for k, v in self.content["versions"].items())
        updates = sum(s["updates"] for s in stages)
        factor = self.settings.get("stage_factor", 2)
        many = "two" if factor == 2 else factor
        learned = f"Each student learned to do in one step\nwhat the one before it does in {many} (Algorithm 2)."
        if self.settings.get("teacher_solver") == "midpoint":
            learned += " The first one learned\nwhat the midpoint rule makes of the teacher."
        if self.stochastic:
            learned = "The student learned to do in one step what\ntwo steps of the teacher, on the same grid, do."
        if self.settings.get("loss_type") == "huber":
            learned += " An error counted\nby its pseudo-Huber distance, not by its square."
        if self.settings.get("clip_loss"):
            learned += " The last step\nwas judged by the finished image, whose values are cut off at its range."
        learned += self.recipe()
        hardware = self.content.get("hardware")
        used = f"\n\nHardware: {plain(hardware_text(hardware))}." if hardware else ""
        return f"""Teacher: {self.teacher_name()}. Images: {self.data_name()}. {learned} {self.conversion()}Cost so
far: {updates:,} updates,
{units:,} forward passes of a batch, {hours:.2f} hours.

| setting | value |
|---|---|
{rows}

Versions: {versions}.{used}"""

    def conversion(self) -> str:
        """What was done to the teacher before its steps could be halved."""
        if not self.converted:
            return ""
        reasons = plain("; ".join(self.about.get("converted", [])))
        measured = (self.content.get("evaluation") or {}).get("converted") or {}
        values = "; ".join(f"{v:.2f} at {steps_text(int(k))}" for k, v in measured.items())
        quality = f" Its distance after that: {values}." if values else ""
        return (
            f"The teacher was converted first ({reasons}): a model of the canonical schedule learned its predictions"
            f" in {self.converted[0]['updates']:,} updates.{quality} "
        )

    def limits(self) -> str:
        lines = [
            f"Use it with {steps_text(self.steps)} only: it was trained for that number, and more steps do not make it"
            " better.",
            "It inherits its teacher's errors and whatever its images show or lack.",
        ]
        if self.evaluation is not None:
            is_what = "It is" if self.evaluation["metric"] == "FID" else "It is not FID, and is"
            lines.append(
                f"The distance is taken in the features named beside it, on {self.evaluation['num_images']:,} images"
                f" and one seed. {is_what} comparable only with figures of the same features, number of"
                " images and data."
            )
        return "\n".join(f"* {line}" for line in lines)

    def card(self) -> ModelCard:
        """The whole card."""
        more = self.show_pictures()
        parts = [
            f"# {plain(self.name)}",
            self.headline(),
            f"## Use\n\n{self.usage()}",
            "## Quality and steps" + (f"\n\n{more}" if more else ""),
            self.table(),
            *([f"## Evaluation\n\n{self.evaluation_table()}"] if self.measured else []),
            f"## Training\n\n{self.training()}",
            f"## Limits\n\n{self.limits()}",
            f"## Citation\n\n{CITATION}",
        ]
        return ModelCard(signed(f"---\n{self.data().to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n"))


def make_card(folder: Path, content: dict, steps: int | None = None, repo_id: str | None = None, license="unknown"):
    """
    The card of the chain in a folder, see [`CardOf`].

    Returns:
        [`~huggingface_hub.ModelCard`]: Its text is `str(card)`.
    """
    pictures = [name for name in PICTURES if (folder / name).exists()]
    try:
        measured = summarize_rows(read_rows(folder))
    except InputError:
        # Nothing was measured, or it cannot be read: no reason to stop a chain that is being published.
        measured = []
    content = {**content, "evaluation": group_distances(measured)}
    return CardOf(content, steps, repo_id, pictures, license, measured).card()


def group_distances(measured: list[dict]) -> dict:
    """The distances of a run's models at their steps, of the first rows that can be compared."""
    groups: dict[tuple, dict] = {}
    for row in measured:
        if row["sampler"] != "progdistill":
            continue
        group = groups.setdefault(
            (row["metric"], row["num_images"], tuple(row["seeds"])),
            {
                "metric": row["metric"],
                "num_images": row["num_images"],
                "seed": row["seeds"][0],
                "floor": row["real_vs_real"]["frechet_distance"],
            },
        )
        kind = row["model"] if row["model"] in ("teacher", "converted") else "students"
        group.setdefault(kind, {})[str(row["num_inference_steps"])] = row["frechet_distance"][0]
    return next((group for group in groups.values() if {"teacher", "students"} <= group.keys()), {})
