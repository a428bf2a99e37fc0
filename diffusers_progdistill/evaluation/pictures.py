"""samples.png and curve.png."""

from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from ..disk import replace_file


def to_pictures(images: torch.Tensor, size: int = 48) -> list[Image.Image]:
    """PIL images from `(num_images, channels, height, width)` in [0, 1]; small ones enlarged without smoothing."""
    factor = max(1, size // images.shape[-1])
    out = []
    for image in (images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy():
        picture = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
        out.append(picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST))
    return out


def save_rows(rows: list[tuple[str, torch.Tensor]], path: Path, column_names: list[str] = ()):
    """
    One labelled row of images for each entry, the first on top, under one another.

    Args:
        rows (`list[tuple[str, torch.Tensor]]`): Label and images in [0, 1] of each row.
        path (`Path`): The PNG to write.
        column_names (`list[str]`, *optional*): What stands over each column; cut to its width.
    """
    pictures = [(label, to_pictures(images)) for label, images in rows]
    width, height = pictures[0][1][0].size
    margin, gap, header = 150, 2, 20 if column_names else 0
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


def save_curve(students: dict[int, float], teacher: dict[int, float], floor: float, name: str, path: Path):
    """Distance against sampling steps, both on log axes, for the students and for the teacher's own sampler."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(*zip(*sorted(teacher.items())), "o--", color="0.55", label="teacher, DDIM")
    axes.plot(*zip(*sorted(students.items())), "o-", color="tab:blue", label="distilled students")
    axes.axhline(
        floor, color="tab:green", linewidth=1, linestyle=":", label="real images, half against half (smaller sets)"
    )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    ticks = sorted({*students, *teacher})
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.set_xlabel("sampling steps")
    axes.set_ylabel(f"{name}, lower is better")
    axes.legend(frameon=False)
    axes.grid(alpha=0.25)
    replace_file(path, lambda temporary: figure.savefig(temporary, dpi=130))
