"""samples.png and curve.png."""

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image, ImageDraw, ImageFont

from ..disk import replace_file


if TYPE_CHECKING:
    from matplotlib.axes import Axes

# By steps: the median, least and greatest of the seeds, or the one value thrice.
Line = dict[int, list[float]]
# Of the lines beside the students', which are blue; that of real images is green.
COLORS = ("tab:orange", "tab:red", "tab:purple", "tab:brown", "0.5", "tab:pink", "tab:olive", "tab:cyan")


def to_pictures(images: torch.Tensor, size: int = 64) -> list[Image.Image]:
    """PIL images from `(num_images, channels, height, width)` in [0, 1]; small ones enlarged without smoothing."""
    factor = max(1, size // images.shape[-1])
    out = []
    for image in (images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy():
        picture = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
        out.append(picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST))
    return out


def save_rows(rows: list[tuple[str, torch.Tensor]], path: Path, column_names: list[str] = []) -> None:
    """Write a PNG of labelled rows of images in [0, 1], with names over the columns that are cut to their width."""
    pictures = [(label, to_pictures(images)) for label, images in rows]
    width, height = pictures[0][1][0].size
    margin, gap, header = 150, 6, 20 if column_names else 0
    columns = max(len(p) for _, p in pictures)
    grid = Image.new("RGB", (margin + columns * (width + gap), header + len(rows) * (height + gap)), "white")
    draw, font, small = ImageDraw.Draw(grid), ImageFont.load_default(15), ImageFont.load_default(12)
    for x, name in enumerate(column_names):
        while name and draw.textlength(name, small) > width:
            name = name[:-1]
        middle = margin + x * (width + gap) + width // 2
        draw.text((middle - draw.textlength(name, small) // 2, 2), name, fill="black", font=small)
    for y, (label, row) in enumerate(pictures):
        top = header + y * (height + gap)
        draw.text((8, top + height // 2 - 9), label, fill="black", font=font)
        for x, picture in enumerate(row):
            grid.paste(picture, (margin + x * (width + gap), top))
    replace_file(path, grid.save)


def save_curve(summaries: list[dict], folder: Path) -> None:
    """Draw `curve.png`: distances by steps, a panel for each metric; the students of a run are one line."""
    curves, real_vs_real = {}, {}
    for row in summaries:
        run, slash, name = row["model"].rpartition("/")
        label = f"{run}{slash}students" if name.startswith("steps-") else f"{row['model']}, {row['sampler']}"
        line = curves.setdefault(row["metric"], {}).setdefault(label, {})
        line[row["num_inference_steps"]] = row["frechet_distance"]
        real_vs_real[row["metric"]] = row["real_vs_real"]["frechet_distance"]
    save_curves(curves, real_vs_real, folder / "curve.png")


def save_curves(curves: dict[str, dict[str, Line]], real_vs_real: dict[str, float], path: Path) -> None:
    """
    Draw distance against sampling steps, both on log axes, one panel a metric; the line "students" is the strongest.

    Args:
        curves (`dict[str, dict[str, Line]]`): By metric and the line's label.
        real_vs_real (`dict[str, float]`): By metric, the distance of real images to real images.
    """
    from matplotlib.figure import Figure

    several = len(curves) > 1
    figure = Figure(figsize=(6.4 * len(curves), 4.5 if several else 4), layout="constrained")
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    for axes, (metric, lines) in zip(panels, curves.items()):
        _draw_panel(axes, lines, real_vs_real[metric])
        axes.set_ylabel(f"{metric}, lower is better")
    # All panels have the same lines.
    handles, labels = panels[0].get_legend_handles_labels()
    if several:
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    else:
        panels[0].legend(frameon=False)
    replace_file(path, lambda temporary: figure.savefig(temporary, dpi=130))


def _draw_panel(axes: "Axes", lines: dict[str, Line], real_vs_real: float) -> None:
    """Draw the lines of one metric."""
    colors = itertools.cycle(COLORS)
    for label, line in lines.items():
        steps = sorted(line)
        middle, low, high = zip(*(line[n] for n in steps))
        is_main = label == "students"
        color = "tab:blue" if is_main else next(colors)
        axes.plot(steps, middle, "o-" if is_main else "o--", color=color, label=label, zorder=3 if is_main else 2)
        axes.fill_between(steps, low, high, color=color, alpha=0.2, linewidth=0)
    label = "real images, one part to the rest"
    axes.axhline(real_vs_real, color="tab:green", linewidth=1, linestyle=":", label=label)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    ticks = sorted({n for line in lines.values() for n in line})
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.set_xlabel("sampling steps")
    axes.grid(alpha=0.25)
