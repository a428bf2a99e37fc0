from importlib.util import find_spec
from pathlib import Path

from ..errors import InputError
from ..evaluation.config import EvaluationConfig
from .parsing import parse, split_targets


DESCRIPTION = """Measure models: distances to real images, precision and recall, agreement with the teacher. Models
that were distilled to a number of steps are measured at that; others at --steps, by each of --samplers. What is
measured already is not measured again.
usage: progdistill evaluate DIR [DIR ...] [OPTIONS]; a DIR is the OUTPUT_DIR of `progdistill distill` (its teacher and
all its students), a pipeline folder or a name on the Hub."""


def main(argv: list[str]) -> int:
    targets, argv = split_targets(argv)
    config = parse(EvaluationConfig, argv, "progdistill evaluate", DESCRIPTION)
    check(config, targets)
    from ..training.evaluate import evaluate

    evaluate(config, targets)
    return 0


def check(config: EvaluationConfig, targets: list[str]) -> None:
    """Raise [`InputError`] for options that cannot be right, before anything heavy is imported."""
    if not targets:
        raise InputError("give what to measure first: progdistill evaluate DIR [DIR ...]")
    config.check()
    if find_spec("torchmetrics") is None:
        raise InputError("evaluate needs torchmetrics: `pip install diffusers-progdistill[eval]`")
    if config.dataset_name is not None and config.train_data_dir is not None:
        raise InputError("give the images by one of --dataset_name and --train_data_dir")
    for target in targets:
        if Path(target).is_file():
            raise InputError(f"{target} is a file: give a folder, or a name on the Hub")
