"""Draws docs/images/architecture.png: the layers in the order of imports, and the way of one batch through the files.

python docs/pictures/architecture.py
"""

from pathlib import Path

import matplotlib


matplotlib.use("Agg")

from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.patches import FancyBboxPatch  # noqa: E402


PICTURE = Path(__file__).parents[1] / "images" / "architecture.png"

# From the first to be imported to the last; a layer imports only those below it.
LAYERS = ["errors, disk, seeds, record, ...", "processes", "schedulers", "denoisers", "pipelines", "data"]
LAYERS += ["families", "objectives", "evaluation", "hub", "training", "commands"]
COLOURS = {"training": "#ffd7a8", "data": "#cfe8c6", "objectives": "#ffc2c2", "denoisers": "#cfdcff"}
COLOURS |= {"processes": "#e6d5f5"}
OTHER = "#eeeeee"

# One batch of a distillation stage: file, what it does, and what it hands to the next one.
WAY = [
    ("training/loop.py", "counts the updates of a stage", "update number"),
    ("training/examples.py", "draws noise and noise levels", "u, ε"),
    ("data/order.py", "chooses the images", "image numbers"),
    ("data/images.py", "reads and crops them", "uint8 images"),
    ("denoisers/codec.py", "makes data of images", "x"),
    ("objectives/distillation.py", "adds noise, asks for the target", "z, angle"),
    ("processes/targets.py", "takes the teacher's steps", "z at each step"),
    ("denoisers/base.py", "calls teacher and student, with guidance", "output"),
    ("processes/prediction.py", "turns outputs into x and back", "error"),
    ("processes/weighting.py", "weights the error", "loss"),
    ("training/optimizer.py", "clips the gradient, steps", ""),
]


def draw_box(axes, left: float, bottom: float, width: float, height: float, colour: str):
    style = "round,pad=0,rounding_size=0.12"
    box = FancyBboxPatch((left, bottom), width, height, boxstyle=style, facecolor=colour, edgecolor="#555555")
    axes.add_patch(box)


def draw_layers(axes):
    axes.set_title("Layers: each imports those below it", fontsize=12, loc="left")
    for number, name in enumerate(LAYERS):
        draw_box(axes, 0.4, number, 4.5, 0.8, COLOURS.get(name, OTHER))
        axes.text(2.6, number + 0.4, name, ha="center", va="center", fontsize=10.5)
    arrow = {"arrowstyle": "-|>", "color": "#555555", "lw": 1.4}
    axes.annotate("", (0.1, 0.1), (0.1, len(LAYERS) - 0.3), arrowprops=arrow)
    axes.text(-0.15, len(LAYERS) / 2, "imports", rotation=90, ha="center", va="center", fontsize=10)
    axes.set_xlim(-0.4, 5), axes.set_ylim(-0.2, len(LAYERS))


def draw_way(axes):
    axes.set_title("One batch: from the data set to the optimizer's step", fontsize=12, loc="left")
    count = len(WAY)
    for number, (file, what, handed) in enumerate(WAY):
        top = count - number
        draw_box(axes, 0, top - 0.62, 7.6, 0.62, COLOURS[file.split("/")[0]])
        axes.text(0.15, top - 0.31, f"{number + 1}", va="center", fontsize=10, color="#555555")
        axes.text(0.6, top - 0.31, file, va="center", fontsize=10.5, family="monospace")
        axes.text(4.0, top - 0.31, what, va="center", fontsize=10)
        if handed:
            arrow = {"arrowstyle": "-|>", "color": "#333333", "lw": 1.2}
            axes.annotate("", (3.5, top - 1), (3.5, top - 0.62), arrowprops=arrow)
            axes.text(3.65, top - 0.81, handed, va="center", fontsize=9, style="italic")
    # Rows 8 and 9 are entered more than once.
    axes.plot([7.75, 7.95, 7.95, 7.75], [4, 4, 2.38, 2.38], color="#333333", lw=1.2)
    note = "for each step\nof the teacher,\nthen for\nthe student"
    axes.text(8.05, 3.19, note, va="center", fontsize=9, style="italic")
    axes.set_xlim(-0.1, 9.6), axes.set_ylim(0.2, count + 0.1)


def main():
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 6.6), width_ratios=[4, 9.7])
    draw_layers(left), draw_way(right)
    for axes in (left, right):
        axes.axis("off")
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=110)


if __name__ == "__main__":
    main()
