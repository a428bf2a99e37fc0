"""What evaluation.json says, over its seeds: as rows, as a table, as Markdown."""

import json
import statistics
from pathlib import Path

from ..errors import InputError


FILE_NAME = "evaluation.json"
FIGURES = ("frechet_distance", "kernel_distance", "precision", "recall", "psnr_to_reference")


def read_content(path: Path) -> dict:
    """
    What an `evaluation.json` says: `results`, one row for each model, sampler, steps, seed and extractor, and
    `floors`, those of real images for each metric and number of images.

    Raises:
        [`InputError`]: If it is something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not all(isinstance(row["frechet_distance"], float) for row in content["results"] + content["floors"]):
            raise ValueError
        return content
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not the evaluation.json of `progdistill evaluate`: move it away") from error


def summaries(rows: list[dict]) -> list[dict]:
    """Over the seeds: each figure's median, least and greatest, for every model, sampler, steps and extractor."""
    groups: dict[tuple, list[dict]] = {}
    keys = ("model", "sampler", "num_inference_steps", "guidance_scale", "feature_extractor", "metric", "num_images")
    for row in rows:
        groups.setdefault(tuple(row[k] for k in keys), []).append(row)
    out = []
    for key, group in groups.items():
        summary = dict(zip(keys, key)) | {"seeds": [row["seed"] for row in group]}
        for figure in FIGURES:
            values = [row[figure] for row in group if figure in row]
            # Agreement with different images has no median.
            references = {row.get("reference") for row in group} if figure == "psnr_to_reference" else {None}
            if values and len(references) == 1:
                summary[figure] = [statistics.median(values), min(values), max(values)]
        out.append(summary)
    return out


def table(rows: list[dict], floors: dict[str, dict[str, float]]) -> str:
    """The summaries as text, one block an extractor, the floor of real images last."""
    blocks = []
    for metric in dict.fromkeys(row["metric"] for row in rows):
        own = [row for row in rows if row["metric"] == metric]
        seeds = own[0]["seeds"]
        count = f"{own[0]['num_images']:,} images, seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
        lines = [f"{metric}: {count}; distances: lower is better", ""]
        wide = max(20, 2 + max(len(row["model"]) for row in own))
        lines.append(
            f"{'model':<{wide}}{'sampler':<14}{'steps':>6}{'distance':>10}{'range':>20}{'kernel':>11}{'precision':>11}"
            f"{'recall':>8}{'PSNR, dB':>10}"
        )
        for row in own:
            middle, least, greatest = row["frechet_distance"]
            spread = f"[{least:.3f}, {greatest:.3f}]" if len(seeds) > 1 else "-"
            agreement = f"{row['psnr_to_reference'][0]:.1f}" if "psnr_to_reference" in row else "-"
            lines.append(
                f"{row['model']:<{wide}}{row['sampler']:<14}{row['num_inference_steps']:>6}{middle:>10.3f}{spread:>20}"
                f"{row['kernel_distance'][0]:>11.4g}{row['precision'][0]:>11.3f}{row['recall'][0]:>8.3f}{agreement:>10}"
            )
        floor = floors[metric]
        lines.append(
            f"{'real images':<{wide + 20}}{floor['frechet_distance']:>10.3f}{'':>20}{floor['kernel_distance']:>11.4g}"
            f"{floor['precision']:>11.3f}{floor['recall']:>8.3f}{'':>10}"
        )
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)
