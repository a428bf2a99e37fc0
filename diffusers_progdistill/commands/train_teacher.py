from ..training.config import TeacherConfig
from .parsing import parse


DESCRIPTION = """Train a diffusion model on the canonical cosine schedule in continuous time (Algorithm 1 of Salimans &
Ho, 2022). OUTPUT_DIR becomes a pipeline folder with the average of the weights, ready for `progdistill distill`."""


def main(argv: list[str]) -> int:
    config = parse(TeacherConfig, argv, "progdistill train-teacher", DESCRIPTION)
    config.check()
    from ..training.teacher import train_teacher

    train_teacher(config)
    return 0
