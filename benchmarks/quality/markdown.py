"""The tables of docs/results.md from an `evaluation.json`, and its curve.

python benchmarks/quality/markdown.py fashion-students/evaluation.json --curve curve.png

A figure is of the most images that were measured, with one seed (a star: of 2,000); behind it in brackets the range of
2,000 images over all seeds, and its ratio to the teacher's own sampler at 256 steps of the same number of images. The
curve is of 2,000 images and the first seed.
"""

import argparse
import json
from pathlib import Path

from diffusers_progdistill.evaluation.pictures import save_curves


RANGE_IMAGES, REFERENCE_STEPS = 2000, 256
NAMES = {
    "student": "student",
    "teacher/progdistill": "teacher, DDIM",
    "teacher/ddpm": "ancestral DDPM",
    "teacher/dpmsolver++": "DPM-Solver++ 2M",
    "teacher/unipc": "UniPC",
    "consistency/progdistill": "consistency-style student",
    "consistency, DDIM/progdistill": "the same by DDIM",
}


def label_of(row: dict) -> str:
    """The column of a row."""
    # A chain that goes on elsewhere is named with its folder.
    is_student = row["model"].rsplit("/", 1)[-1].startswith("steps-")
    return NAMES["student" if is_student else f"{row['model']}/{row['sampler']}"]


def number(value: float) -> str:
    """Three digits."""
    return f"{value:#.3g}".rstrip(".") if value < 1000 else f"{value:,.0f}"


def cell(rows: list[dict], references: dict[int, float]) -> str:
    """One figure with its range and ratio."""
    most = max(row["num_images"] for row in rows)
    headline = min((row for row in rows if row["num_images"] == most), key=lambda row: row["seed"])
    value = headline["frechet_distance"]
    text = number(value) + "*" * (most == RANGE_IMAGES)
    spread = [row["frechet_distance"] for row in rows if row["num_images"] == RANGE_IMAGES]
    if len(spread) > 1:
        text += f" [{number(min(spread))}, {number(max(spread))}]"
    return text + (f" ({number(value / references[most])})" if most in references else "")


def tables(content: dict) -> str:
    """One table for each metric."""
    blocks = []
    for metric in dict.fromkeys(row["metric"] for row in content["results"]):
        rows = [row for row in content["results"] if row["metric"] == metric]
        references = {}
        for row in sorted(rows, key=lambda row: -row["seed"]):
            if label_of(row) == "teacher, DDIM" and row["num_inference_steps"] == REFERENCE_STEPS:
                references[row["num_images"]] = row["frechet_distance"]
        columns = [name for name in NAMES.values() if name in set(map(label_of, rows))]
        floors = [floor for floor in content["floors"] if floor["metric"] == metric]
        shown = ", ".join(f"{number(f['frechet_distance'])} ({f['num_images']:,} images)" for f in floors)
        lines = [f"{metric}; real images {shown}", ""]
        lines += ["| steps | " + " | ".join(columns) + " |", "|--:|" + "--:|" * len(columns)]
        for steps in sorted({row["num_inference_steps"] for row in rows}, reverse=True):
            here = [[r for r in rows if r["num_inference_steps"] == steps and label_of(r) == c] for c in columns]
            lines.append(f"| {steps} | " + " | ".join(cell(r, references) if r else "" for r in here) + " |")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def draw(content: dict, path: Path):
    """Every column as a line, one panel a metric."""
    rows = [row for row in content["results"] if row["num_images"] == RANGE_IMAGES]
    seed, curves = min(row["seed"] for row in rows), {}
    for name in NAMES.values():
        for row in rows:
            if row["seed"] == seed and label_of(row) == name:
                label = "students" if name == "student" else name
                line = curves.setdefault(row["metric"], {}).setdefault(label, {})
                line[row["num_inference_steps"]] = [row["frechet_distance"]]
    floors = {f["metric"]: f["frechet_distance"] for f in content["floors"] if f["num_images"] == RANGE_IMAGES}
    save_curves(curves, floors, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evaluation", type=Path)
    parser.add_argument("--curve", type=Path, help="a PNG to write")
    options = parser.parse_args()
    content = json.loads(options.evaluation.read_text())
    print(tables(content))
    if options.curve:
        draw(content, options.curve)


if __name__ == "__main__":
    main()
