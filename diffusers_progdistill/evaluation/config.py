"""The options of an evaluation; they need no torch."""

from dataclasses import dataclass

from ..options import DataOptions, Valid, option


def at_least(least: int) -> Valid:
    """A number of at least this."""
    return Valid(lambda value: value >= least, f"at least {least}")


def numbers(least: int) -> Valid:
    """Several numbers by commas."""
    return Valid(
        lambda text: all(word.strip().isdecimal() and int(word) >= least for word in text.split(",")),
        f"numbers of at least {least} such as 1,2,4",
    )


@dataclass
class EvaluationConfig(DataOptions):
    """Options of `progdistill evaluate`."""

    dataset_name: str | None = option(None, "The real images, as for `distill`. Default: those of the run.")
    cache_dir: str | None = option(None, "Where downloads and the features of the real images are kept.")
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
    steps: str = option(
        "1,2,4,8,16,32,64,128,256", "Sampling steps of the models without steps of their own.", numbers(1)
    )
    reference_steps: int = option(
        256, "Sampling steps of the teacher that the students' images are compared with.", at_least(1)
    )
    guidance_scale: float = option(1.0, "Scale at which models with a null class are guided; 1 is none.")
    feature_extractor: str = option(
        "classifier",
        "Features, several by commas: classifier (trained on the labels), efflite0, inception (FID), or a vision model"
        " of transformers such as facebook/dinov2-small.",
    )
    # Precision and recall look at an image's three nearest.
    num_images: int = option(2000, "Images that each figure is measured with.", at_least(4))
    seeds: str = option(
        "0", "Seeds of the noise, such as 1,2,3: each figure becomes a median with a range.", numbers(0)
    )
    eval_batch_size: int = option(
        500, "Images that are made before the processes gather them; changes no figure.", at_least(1)
    )
    output_dir: str | None = option(
        None, "Where evaluation.json and curve.png are written. Default: the run's folder, else `evaluation`."
    )
