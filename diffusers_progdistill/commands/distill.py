from ..training.config import DistillationConfig
from .parsing import parse


DESCRIPTION = """Distil a diffusion model into students of half, a quarter, an eighth, ... of its sampling steps, each
taught by the one before (Algorithm 2 of Salimans & Ho, 2022). Each student is a pipeline folder OUTPUT_DIR/steps-N
that stock diffusers loads, complete the moment its stage ends. Running the same command again continues an unfinished
chain at the first student that is missing."""


def main(argv: list[str]) -> int:
    config = parse(DistillationConfig, argv, "progdistill distill", DESCRIPTION)
    config.check()
    from ..training.chain import distill

    distill(config)
    return 0
