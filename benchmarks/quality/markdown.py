"""The tables of docs/results.md from a folder's `evaluation.json`, and its curve.

python benchmarks/quality/markdown.py fashion-students --curve curve.png

For each metric two tables. The first is of the most images that were measured, and one seed: in round brackets the
ratio to the teacher's own sampler at 256 steps, with the range of that ratio over the seeds of 2,000 images, each
against the same seed of the teacher. The second is of 2,000 images: the median and the range of the seeds, or the one
value. The least distance of a row is in bold. The curve is of 2,000 images and the first seed.
"""

import argparse
import statistics
from pathlib import Path

from diffusers_progdistill.evaluation.pictures import save_curves
from diffusers_progdistill.evaluation.store import read_rows


RANGE_IMAGES, REFERENCE_STEPS = 2000, 256
STUDENT, REFERENCE = "student", "teacher, DDIM"
NAMES = {
    "teacher/progdistill": REFERENCE,
    "teacher/ddpm": "ancestral DDPM",
    "teacher/dpmsolver++": "DPM-Solver++ 2M",
    "teacher/unipc": "UniPC",
    "consistency/progdistill": "consistency-style student",
}
COLUMNS = [STUDENT, *NAMES.values()]


def column_of(row: dict) -> str | None:
    """Where a row belongs, if anywhere."""
    # A chain that goes on elsewhere is named with its folder.
    is_student = row["model"].rsplit("/", 1)[-1].startswith("steps-")
    return STUDENT if is_student else NAMES.get(f"{row['model']}/{row['sampler']}")


def number(value: float) -> str:
    """Three digits."""
    return f"{value:#.3g}".rstrip(".") if value < 1000 else f"{value:,.0f}"


def by_seed(rows: list[dict], num_images: int) -> dict[int, float]:
    """The distances of a model, sampler and number of steps."""
    return {row["seed"]: row["frechet_distance"] for row in rows if row["num_images"] == num_images}


def headline(rows: list[dict], references: list[dict], most: int) -> tuple[float, str] | None:
    """The distance of the most images, and what stands behind it: its ratio to the reference and the range of that."""
    values, base = by_seed(rows, most), by_seed(references, most)
    if not values:
        return None
    seed = min(values)
    few, few_base = by_seed(rows, RANGE_IMAGES), by_seed(references, RANGE_IMAGES)
    ratios = [few[k] / few_base[k] for k in few if k in few_base]
    spread = f" [{number(min(ratios))}, {number(max(ratios))}]" if len(ratios) > 1 else ""
    return values[seed], f" ({number(values[seed] / base[seed])}{spread})"


def median(rows: list[dict], *_) -> tuple[float, str] | None:
    """The median, and the range."""
    values = by_seed(rows, RANGE_IMAGES).values()
    if not values:
        return None
    return statistics.median(values), f" [{number(min(values))}, {number(max(values))}]" if len(values) > 1 else ""


def line_of(steps: int, found: list[tuple[float, str] | None]) -> str:
    """A row of a table, its least distance in bold."""
    least = min(value for value, _ in filter(None, found))
    cells = []
    for value, behind in (cell or (None, "") for cell in found):
        shown = "" if value is None else number(value)
        cells.append((f"**{shown}**" if value == least and len([*filter(None, found)]) > 1 else shown) + behind)
    return f"| {steps} | " + " | ".join(cells) + " |"


def tables(rows: list[dict]) -> str:
    """Two tables for each metric."""
    blocks = []
    for metric in dict.fromkeys(row["metric"] for row in rows):
        own = [row for row in rows if row["metric"] == metric]
        real = {row["num_images"]: row["real_vs_real"]["frechet_distance"] for row in own}
        cells = {}
        for row in own:
            if column := column_of(row):
                cells.setdefault((row["num_inference_steps"], column), []).append(row)
        most = max(row["num_images"] for rows in cells.values() for row in rows)
        references = cells[REFERENCE_STEPS, REFERENCE]
        for count, show in ((most, headline), (RANGE_IMAGES, median)):
            lines = [f"{metric}, {count:,} images (real images: {number(real[count])})", ""]
            lines += ["| steps | " + " | ".join(COLUMNS) + " |", "|--:|" + "--:|" * len(COLUMNS)]
            for steps in sorted({n for n, _ in cells}, reverse=True):
                found = [show(cells.get((steps, column), []), references, most) for column in COLUMNS]
                if any(found):
                    lines.append(line_of(steps, found))
            blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def draw(rows: list[dict], path: Path):
    """Every column as a line, one panel a metric."""
    rows = [row for row in rows if row["num_images"] == RANGE_IMAGES]
    seed, curves = min(row["seed"] for row in rows), {}
    for name in COLUMNS:
        for row in rows:
            if row["seed"] == seed and column_of(row) == name:
                label = "students" if name == STUDENT else name
                line = curves.setdefault(row["metric"], {}).setdefault(label, {})
                line[row["num_inference_steps"]] = 3 * [row["frechet_distance"]]
    save_curves(curves, {row["metric"]: row["real_vs_real"]["frechet_distance"] for row in rows}, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--curve", type=Path, help="a PNG to write")
    options = parser.parse_args()
    rows = read_rows(options.folder)
    print(tables(rows))
    if options.curve:
        draw(rows, options.curve)


if __name__ == "__main__":
    main()
