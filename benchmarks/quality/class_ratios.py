"""Class-conditional and guided 4-step students against their teacher at 256 steps, on the digits.

python benchmarks/quality/class_ratios.py OUTPUT

Trains what OUTPUT does not hold yet: a class-conditional teacher with label dropping, its chain to 4 steps, and the
chain of its guided samples (converted first). Then: the share of generated digits to which a seeded classifier,
trained on four fifths of the real ones, gives the asked label; and the Frechet distance of the guided student to that
of the guided teacher, from the same noise.
"""

import argparse
import dataclasses
from pathlib import Path

import torch
from conversion_ratios import Distances, chain_of, ratio, show

from diffusers_progdistill.commands.demo import teacher_config
from diffusers_progdistill.data import ImageData, load_digits
from diffusers_progdistill.evaluation.extractors import train_classifier
from diffusers_progdistill.evaluation.sampling import generate
from diffusers_progdistill.pipelines.pipeline_progressive_distillation import ProgressiveDistillationPipeline
from diffusers_progdistill.training.chain import distill
from diffusers_progdistill.training.teacher import train_teacher


def chain_config(folder: Path, name: str, **options):
    options = {"updates_per_stage": 300, "class_column": "label", **options}
    return chain_of(str(folder / "teacher"), str(folder / name), **options)


def seeded_classifier(seed: int = 0):
    """A classifier of the digits and its share of right answers on the fifth of them that it has not seen."""
    data = load_digits()
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    held_out, kept = order[: len(data) // 5], order[len(data) // 5 :]
    images = data.all_images()
    train = ImageData(
        [images[k].numpy() for k in kept], data.labels[kept].tolist(), 1, 8, class_names=data.class_names
    )
    classifier = train_classifier(train, seed, epochs=40)
    return classifier, right(classifier, images[held_out].float() / 255, data.labels[held_out])


@torch.no_grad()
def right(classifier, images, labels) -> float:
    answers = torch.cat([classifier.head(classifier(part)).argmax(1) for part in images.split(500)])
    return 100 * (answers == labels).float().mean().item()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--guidance_scale", type=float, default=2.0)
    parser.add_argument("--images_per_class", type=int, default=500)
    parser.add_argument("--updates", type=int, default=4500)
    parser.add_argument("--seeds", type=int, default=5, help="of the guided row")
    parser.add_argument("--rows", default="classes,guided")
    options = parser.parse_args()
    folder, scale, rows = options.folder, options.guidance_scale, options.rows.split(",")

    teacher = teacher_config(folder)
    classes = {"class_column": "label", "label_dropout": 0.1, "max_train_steps": options.updates}
    train_teacher(dataclasses.replace(teacher, **classes))
    teacher = ProgressiveDistillationPipeline.from_pretrained(folder / "teacher")
    if "classes" in rows:
        distill(chain_config(folder, "plain"))
        classifier, accuracy = seeded_classifier()
        print(f"classifier, share right of real digits that it has not seen: {accuracy:.1f} %", flush=True)
        count = 10 * options.images_per_class
        labels = torch.arange(count) % 10
        student = ProgressiveDistillationPipeline.from_pretrained(folder / "plain" / "steps-4")
        shares = {}
        for name, pipeline, steps in (("student", student, 4), ("teacher", teacher, 256)):
            shares[name] = [right(classifier, generate(pipeline, count, steps, s), labels) for s in (1, 2, 3)]
            show(f"{name}, {steps} steps: asked label, %", shares[name])
        show("student - teacher", [a - b for a, b in zip(shares["student"], shares["teacher"])], "goal >= -2")
    if "guided" in rows:
        distill(chain_config(folder, f"guided-{scale:g}", guidance_scale=scale, conversion_updates=1500))
        distances = Distances(folder / "distances.json", list(range(1, options.seeds + 1)), 2000)
        student = ProgressiveDistillationPipeline.from_pretrained(folder / f"guided-{scale:g}" / "steps-4")
        own = distances.of(f"guided {scale:g} student", student, 4)
        show(f"guided {scale:g} student, 4 steps", own)
        best = distances.of(f"guided {scale:g} teacher", teacher, 256, scale)
        show(f"guided {scale:g} teacher, 256 steps", best)
        show("student / teacher", ratio(own, best), "goal <= 1.35, with 4 evaluations for 512")


if __name__ == "__main__":
    main()
