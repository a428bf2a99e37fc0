"""The model card of a chain, made afresh from its record: what the model is, how good it is, how to use it."""

import hashlib
import itertools
import re
from collections.abc import Collection
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..errors import InputError
from ..evaluation.samplers import OWN
from ..evaluation.store import FIGURES, read_rows, summarize_rows
from ..record import format_hardware, list_students


TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
PICTURES = ("samples.png", "curve.png")
TASK = "unconditional-image-generation"
# What the metadata calls data sets that are not on the Hub.
DATA_NAMES = {"digits": "scikit-learn digits", "local": "local folder"}


def sign(text: str) -> str:
    """A card with a last line that tells whether anybody has changed it since."""
    return f"{text}\n<!-- diffusers-progdistill card {hashlib.sha256(text.encode()).hexdigest()} -->\n"


def is_untouched(card: str) -> bool:
    """Whether a card is one of ours as it was made."""
    text, mark, _ = card.rpartition("\n<!-- diffusers-progdistill card ")
    return bool(mark) and sign(text) == card


def escape(text: object) -> str:
    """Text of unknown origin as one line of Markdown that shows it and does nothing else."""
    text = " ".join(str(text).split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]()#|~$!])", r"\\\1", text)


def link_to_hub(name: str, prefix: str = "") -> str:
    """A link to something on the Hub; only the escaped name if it cannot be a name there."""
    if re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        return f"[{escape(name)}](https://huggingface.co/{prefix}{name})"
    return escape(name)


def find_free_name(taken: Collection[str]) -> str:
    """Under which name a card that a person wrote or edited is kept."""
    return next(name for number in itertools.count(1) if (name := f"README.{number}.md") not in taken)


def build_metadata(about: dict, license: str, model_name: str, rows: list[dict]) -> ModelCardData:
    """The metadata block, with every figure of the students so far."""
    data, teacher = about["data"], about["teacher"]
    students = [row for row in rows if row["model"].startswith("steps-")]
    return ModelCardData(
        library_name="diffusers",
        pipeline_tag=TASK,
        tags=["diffusers", "progressive-distillation", "few-step-diffusion"],
        license=license,
        model_name=model_name,
        eval_results=[build_result(data, row, figure) for row in students for figure in FIGURES[:4]] or None,
        **({"datasets": [data["name"]]} if data["source"] == "hub" else {}),
        **({"base_model": teacher["name"], "base_model_relation": "finetune"} if teacher["source"] == "hub" else {}),
    )


def build_result(data: dict, row: dict, figure: str) -> EvalResult:
    """One figure of the model index, and how it was measured."""
    title = row["metric"] if figure == "frechet_distance" else f"{figure}, {row['metric']}"
    steps = row["num_inference_steps"]
    return EvalResult(
        task_type=TASK,
        dataset_type=data.get("name", data["source"]),
        dataset_name=data.get("name") or DATA_NAMES[data["source"]],
        metric_type=figure,
        metric_name=f"{title}, {steps} step{'s' * (steps > 1)}",
        metric_value=row[figure][0],
        metric_args={
            **{key: row[key] for key in ("num_inference_steps", "feature_extractor", "num_images", "seeds")},
            "real_vs_real": row["real_vs_real"][figure],
            **({"range": row[figure][1:]} if len(row["seeds"]) > 1 else {}),
        },
    )


def group_rows(rows: list[dict]) -> list[list[dict]]:
    """The evaluation in groups that can be compared: of the same features, number of images and seeds."""
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault((row["metric"], row["num_images"], tuple(row["seeds"])), []).append(row)
    return list(groups.values())


def make_card(
    folder: Path, content: dict, steps: int | None = None, repo_id: str | None = None, license: str = "unknown"
) -> ModelCard:
    """
    The card of a chain as it stood when the student of `steps` was finished, by default the last.

    Args:
        folder (`Path`): The output folder, with the pictures and the `evaluation.json`.
        content (`dict`): What `chain.json` holds.
        repo_id (`str`, *optional*): Where the chain is published. Default: the local folders are named.
    """
    students = list_students(content)
    steps = steps or students[-1]["num_inference_steps"]
    students = [student for student in students if student["num_inference_steps"] >= steps]
    names = {student["name"] for student in students}
    try:
        rows = [row for row in summarize_rows(read_rows(folder)) if row["model"] in {"teacher", "converted", *names}]
    except InputError:
        # It cannot be read: no reason to stop a chain that is being published.
        rows = []
    groups = group_rows(rows)
    # What is said of the students' quality is of one group: that with most of them.
    own = [[row for row in group if row["sampler"] == OWN] for group in groups]
    quoted = max(own, key=lambda group: sum(row["model"] in names for row in group), default=[])
    model, name = content["about"]["model"], students[-1]["name"]
    labels = model.get("known_labels") or list(range(model.get("num_classes") or 0))
    card = ModelCard.from_template(
        build_metadata(content["about"], license, (repo_id or name).split("/")[-1], rows),
        template_path=str(TEMPLATE),
        **{key: content[key] for key in ("about", "settings", "versions")},
        hardware=format_hardware(content["hardware"]) if content.get("hardware") else None,
        conversion=next((stage for stage in content["stages"] if "num_inference_steps" not in stage), None),
        pictures=[picture for picture in PICTURES if (folder / picture).exists()],
        labels=labels,
        class_names=[text for label, text in enumerate(model.get("class_names", [])) if label in labels],
        place=repo_id or name,
        repo_id=repo_id,
        name=name,
        steps=steps,
        students=students,
        groups=groups,
        quoted=quoted,
        escape=escape,
        link_to_hub=link_to_hub,
    )
    return ModelCard(sign(str(card)))
