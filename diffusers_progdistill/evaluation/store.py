"""evaluation.json: what was measured of the models of a folder, one row each; how it is kept, read and summed up."""

import json
import statistics
from pathlib import Path

from ..disk import write_json
from ..errors import InputError
from ..record import list_versions, only_process_in


FILE_NAME, LOCK_NAME = "evaluation.json", ".evaluation.lock"
FIGURES = ("frechet_distance", "kernel_distance", "precision", "recall", "psnr_to_reference")
# Rows that differ in the seed alone are summed up together.
SUMMED_UP = ("model", "sampler", "num_inference_steps", "guidance_scale", "feature_extractor", "metric", "num_images")
IDENTITY = (*SUMMED_UP, "seed")


def read_rows(folder: Path) -> list[dict]:
    """
    The rows of a folder's `evaluation.json`; none if there is no such file. The keys of a row:

    * `model`: `"teacher"`, `"converted"`, `"steps-N"`, or what was given to `evaluate`; `weights`: its content key;
    * `sampler` (`"progdistill"` is the model's own), `num_inference_steps`, `guidance_scale`, `num_images`, `seed`;
    * `feature_extractor`: as it was asked for; `metric`: what Frechet distances in its features are called;
    * `frechet_distance`, `kernel_distance`, `precision`, `recall`: the figures;
    * `psnr_to_reference` with `reference`, the key of the images compared with: only if there was a reference;
    * `real_vs_real`: the first four figures of as many real images against the others;
    * `real_images`, `real_features`: content keys of the real images, and of these with the extractor.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return []
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["results"]
        if not all(isinstance(values["frechet_distance"], float) for r in rows for values in (r, r["real_vs_real"])):
            raise ValueError
        return rows
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not the evaluation.json of `progdistill evaluate`: move it away") from error


def keep_rows(folder: Path, made: list[dict]) -> list[dict]:
    """Write rows into a folder's file, which others may write to meanwhile, and return what it then holds."""
    same, weights = {identify(row) for row in made}, {row["model"]: row["weights"] for row in made}
    # In place of those of the same figures, and of those of the same model that has been trained again.
    with only_process_in(folder, LOCK_NAME, timeout=-1):
        rows = [
            row
            for row in read_rows(folder)
            if identify(row) not in same and weights.get(row["model"], row["weights"]) == row["weights"]
        ] + made
        write_json(folder / FILE_NAME, {"versions": list_versions(), "results": rows})
    return rows


def identify(row: dict) -> tuple:
    """What a row is the figures of, whatever weights it was measured with."""
    return tuple(row[key] for key in IDENTITY)


def summarize_rows(rows: list[dict]) -> list[dict]:
    """Rows over their seeds: what they have in common, and the median, least and greatest of each figure."""
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in SUMMED_UP), []).append(row)
    summaries = []
    for key, group in groups.items():
        summary = dict(zip(SUMMED_UP, key)) | {"seeds": [row["seed"] for row in group]}
        summary["real_vs_real"] = group[0]["real_vs_real"]
        for figure in FIGURES:
            values = [row[figure] for row in group if figure in row]
            # Agreement with different images has no median.
            references = {row.get("reference") for row in group} if figure == "psnr_to_reference" else {None}
            if values and len(references) == 1:
                summary[figure] = [statistics.median(values), min(values), max(values)]
        summaries.append(summary)
    return summaries


def format_table(summaries: list[dict]) -> str:
    """The summaries as text, one block for each metric, with the figures of real images last."""
    blocks = []
    for metric in dict.fromkeys(row["metric"] for row in summaries):
        own = [row for row in summaries if row["metric"] == metric]
        seeds = own[0]["seeds"]
        count = f"{own[0]['num_images']:,} images, seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
        wide = max(20, 2 + max(len(row["model"]) for row in own))
        lines = [
            f"{metric}: {count}; distances: lower is better\n",
            f"{'model':<{wide}}{'sampler':<14}{'steps':>6}{'distance':>10}{'range':>20}{'kernel':>11}{'precision':>11}"
            f"{'recall':>8}{'PSNR, dB':>10}",
        ]
        for row in own:
            middle, least, greatest = row["frechet_distance"]
            spread = f"[{least:.3f}, {greatest:.3f}]" if len(seeds) > 1 else "-"
            named = f"{row['model']:<{wide}}{row['sampler']:<14}{row['num_inference_steps']:>6}"
            agreement = f"{row['psnr_to_reference'][0]:.1f}" if "psnr_to_reference" in row else "-"
            lines.append(named + _format_figures({k: row[k][0] for k in FIGURES[:4]}, spread) + f"{agreement:>10}")
        lines.append(f"{'real images':<{wide + 20}}" + _format_figures(own[0]["real_vs_real"], ""))
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _format_figures(figures: dict[str, float], spread: str) -> str:
    distance, kernel, precision, recall = (figures[name] for name in FIGURES[:4])
    return f"{distance:>10.3f}{spread:>20}{kernel:>11.4g}{precision:>11.3f}{recall:>8.3f}"
