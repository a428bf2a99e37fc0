"""The tables of docs/results.md from an `evaluation.json`.

python benchmarks/quality/markdown.py fashion-students/evaluation.json

A figure is of the most images that were measured, with one seed; behind it in brackets the range of 2,000 images over
all seeds, and its ratio to the teacher's own sampler at 256 steps of the same number of images.
"""

import argparse
import json
from pathlib import Path


RANGE_IMAGES, REFERENCE_STEPS = 2000, 256


def label_of(row: dict) -> str:
    """The column of a row."""
    # A chain that goes on elsewhere is named with its folder.
    if row["model"].rsplit("/", 1)[-1].startswith("steps-"):
        return "student"
    return row["model"] if row["model"] != "teacher" else f"teacher, {row['sampler']}".replace("progdistill", "DDIM")


def cell(rows: list[dict], references: dict[int, float]) -> str:
    """One figure with its range and ratio."""
    most = max(row["num_images"] for row in rows)
    headline = min((row for row in rows if row["num_images"] == most), key=lambda row: row["seed"])
    value = headline["frechet_distance"]
    text = f"{value:.2f}" if most > RANGE_IMAGES else f"{value:.2f}*"
    spread = [row["frechet_distance"] for row in rows if row["num_images"] == RANGE_IMAGES]
    if len(spread) > 1:
        text += f" [{min(spread):.2f}, {max(spread):.2f}]"
    return text + (f" ({value / references[most]:.2f})" if most in references else "")


def tables(content: dict) -> str:
    """One table for each metric."""
    blocks = []
    for metric in dict.fromkeys(row["metric"] for row in content["results"]):
        rows = [row for row in content["results"] if row["metric"] == metric]
        references = {}
        for row in sorted(rows, key=lambda row: -row["seed"]):
            if label_of(row) == "teacher, DDIM" and row["num_inference_steps"] == REFERENCE_STEPS:
                references[row["num_images"]] = row["frechet_distance"]
        columns = list(dict.fromkeys(map(label_of, rows)))
        floors = [floor for floor in content["floors"] if floor["metric"] == metric]
        shown = ", ".join(f"{f['frechet_distance']:.2f} ({f['num_images']:,} images)" for f in floors)
        lines = [f"{metric}; real images {shown}", ""]
        lines += ["| steps | " + " | ".join(columns) + " |", "|--:|" + "--:|" * len(columns)]
        for steps in sorted({row["num_inference_steps"] for row in rows}, reverse=True):
            here = [[r for r in rows if r["num_inference_steps"] == steps and label_of(r) == c] for c in columns]
            lines.append(f"| {steps} | " + " | ".join(cell(r, references) if r else "" for r in here) + " |")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evaluation", type=Path)
    print(tables(json.loads(parser.parse_args().evaluation.read_text())))


if __name__ == "__main__":
    main()
