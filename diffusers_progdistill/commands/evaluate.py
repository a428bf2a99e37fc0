from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ..errors import InputError
from ..paths import resolve_paths
from ..training.config import option
from .parsing import parse, split_targets


DESCRIPTION = """Measure models: distances to real images, precision and recall, agreement with the teacher. Models
that were distilled to a number of steps are measured at that; others at --steps, by each of --samplers. What is
measured already is not measured again.
usage: progdistill evaluate DIR [DIR ...] [OPTIONS]; a DIR is the OUTPUT_DIR of `progdistill distill` (its teacher and
all its students), a pipeline folder or a name on the Hub."""


@dataclass
class EvaluationConfig:
    """Options of `progdistill evaluate`."""

    dataset_name: str | None = option(None, "The real images, as for `distill`. Default: those of the run.")
    dataset_config_name: str | None = option(None, "The configuration of the data set on the Hub.")
    train_data_dir: str | None = option(None, "A folder of images, a parquet file or a folder of them.")
    train_split: str | None = option(None, "The split that is used. Default: train, if there are splits.")
    follow_links: bool = option(False, "Use images that links in the folder lead to, wherever they are.")
    image_column: str = option("image", "The column of the data set that holds the images.")
    class_column: str | None = option(None, "The column that holds the class labels (for the classifier's features).")
    resolution: int | None = option(None, "Height and width of the images. Default: what the model was made for.")
    center_crop: bool = option(True, "Crop the middle of images that are not square; otherwise they are squeezed.")
    background_color: str = option("white", "The ground that transparent images are laid on: a name or '#rrggbb'.")
    cache_dir: str | None = option(None, "Where downloads and the features of the real images are kept.")
    hub_token: str | None = option(None, "Token for private models and data sets; better given as HF_TOKEN.")

    variant: str | None = option(None, "Variant of the models' weights, for example fp16.")
    trust_remote_code: bool = option(False, "Let code that comes with the models run.")
    pretrained_teacher_model: str | None = option(
        None, "What the students' images are compared with. Default: the teacher of the run."
    )
    samplers: str = option(
        "progdistill",
        "Samplers of the models without steps of their own: progdistill (this package's DDIM), ddim (that of"
        " diffusers), ddpm, dpmsolver++, unipc; several by commas.",
    )
    steps: str = option("1,2,4,8,16,32,64,128,256", "Sampling steps of the models without steps of their own.")
    reference_steps: int = option(256, "Sampling steps of the teacher that the students' images are compared with.")
    guidance_scale: float = option(1.0, "Scale at which models with a null class are guided; 1 is none.")
    feature_extractor: str = option(
        "classifier",
        "Features, several by commas: classifier (trained on the labels), efflite0, inception (FID), or a vision model"
        " of transformers such as facebook/dinov2-small.",
    )
    num_images: int = option(2000, "Images that each figure is measured with.")
    seeds: str = option("0", "Seeds of the noise, such as 1,2,3: each figure becomes a median with a range.")
    eval_batch_size: int = option(500, "Images that are made before the processes gather them; changes no figure.")
    output_dir: str | None = option(
        None, "Where evaluation.json and curve.png are written. Default: the run's folder, else `evaluation`."
    )

    def __post_init__(self):
        resolve_paths(self)


def main(argv: list[str]) -> int:
    targets, argv = split_targets(argv)
    config = parse(EvaluationConfig, argv, "progdistill evaluate", DESCRIPTION)
    check(config, targets)
    from ..training.evaluate import evaluate

    evaluate(config, targets)
    return 0


def check(config: EvaluationConfig, targets: list[str]):
    """Raise [`InputError`] for options that cannot be right, before anything heavy is imported."""
    if not targets:
        raise InputError("give what to measure first: progdistill evaluate DIR [DIR ...]")
    # Precision and recall look at an image's three nearest.
    for name, least in (("num_images", 4), ("eval_batch_size", 1), ("reference_steps", 1)):
        if getattr(config, name) < least:
            raise InputError(f"--{name} must be at least {least}, not {getattr(config, name)}")
    for name, least in (("steps", 1), ("seeds", 0)):
        if not all(word.strip().isdecimal() and int(word) >= least for word in getattr(config, name).split(",")):
            raise InputError(
                f"--{name} must be numbers of at least {least} such as 1,2,4, not {getattr(config, name)}"
            )
    if find_spec("torchmetrics") is None:
        raise InputError("evaluate needs torchmetrics: `pip install diffusers-progdistill[eval]`")
    if config.dataset_name is not None and config.train_data_dir is not None:
        raise InputError("give the images by one of --dataset_name and --train_data_dir")
    for target in targets:
        if Path(target).is_file():
            raise InputError(f"{target} is a file: give a folder, or a name on the Hub")
