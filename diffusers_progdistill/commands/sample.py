from dataclasses import dataclass
from pathlib import Path

from ..disk import replace_file
from ..errors import InputError
from ..options import POSITIVE, Options, Valid, option
from .parsing import parse, split_target


DESCRIPTION = """Generate images with a distilled student or a teacher and save them as one picture.
usage: progdistill sample DIR [OPTIONS]; DIR is a pipeline folder or a name on the Hub."""

PICTURE = Valid(
    lambda name: name.lower().endswith((".png", ".jpg", ".jpeg", ".webp")), "a picture's name, such as samples.png"
)


@dataclass
class SampleConfig(Options):
    """Options of `progdistill sample`."""

    num_images: int = option(64, "Number of images.", POSITIVE)
    num_inference_steps: int | None = option(
        None, "Sampling steps. Default: what the model was distilled for.", POSITIVE
    )
    class_labels: str | None = option(None, "Classes by label or name, such as 3,7; repeated over the images.")
    guidance_scale: float = option(1.0, "Scale of classifier-free guidance; 1 is none, and right for students.")
    output: str = option("samples.png", "The picture to write.", PICTURE)
    seed: int = option(0, "Seed of the noise.")
    batch_size: int = option(64, "Images that are generated in one go.", POSITIVE)
    revision: str | None = option(None, "Branch, tag or commit on the Hub, such as steps-8.")
    variant: str | None = option(None, "Variant of the weights, for example fp16.")
    cache_dir: str | None = option(None, "Where downloaded models are kept.")
    hub_token: str | None = option(None, "Token for private models; better given as HF_TOKEN.")
    trust_remote_code: bool = option(False, "Let code that comes with the model run.")


def main(argv: list[str]) -> int:
    model, argv = split_target(argv)
    config = parse(SampleConfig, argv, "progdistill sample", DESCRIPTION)
    if model is None:
        raise InputError("give the model first: progdistill sample DIR")
    config.check()
    if not Path(config.output).absolute().parent.is_dir():
        raise InputError(f"--output {config.output} is in a folder that does not exist")
    sample(model, config)
    print(f"wrote {config.output}")
    return 0


def sample(model: str, config: SampleConfig) -> None:
    """Load, generate, save."""
    import torch
    from diffusers.utils import logging, make_image_grid

    from ..evaluation.pictures import to_pictures
    from ..evaluation.sampling import draw_noise
    from ..families import open_model
    from ..pipelines.loading import find_device
    from ..pipelines.source import ModelSource

    logging.disable_progress_bar()
    where = {"cache_dir": config.cache_dir, "token": config.hub_token, "revision": config.revision}
    source = ModelSource(model, "", variant=config.variant, trust_remote_code=config.trust_remote_code, **where)
    pipeline = open_model(source).pipeline.to(find_device())
    images, labels = [], None
    try:
        if config.class_labels is not None:
            given = pipeline.get_label_ids([c.strip() for c in config.class_labels.split(",")])
            labels = [given[k % len(given)] for k in range(config.num_images)]
        for first in range(0, config.num_images, config.batch_size):
            size = min(config.batch_size, config.num_images - first)
            noise, generators = draw_noise(config.seed, first, size, pipeline.latents_shape(1)[1:])
            some = None if labels is None else labels[first : first + size]
            options = {"output_type": "pt", "guidance_scale": config.guidance_scale}
            made = pipeline(size, some, config.num_inference_steps, generators, latents=noise, **options)
            images.append(made.images.cpu())
    except ValueError as error:
        raise InputError(str(error)) from error
    pictures = to_pictures(torch.cat(images).float())
    columns = min(len(pictures), max(1, round(len(pictures) ** 0.5)))
    pictures += [pictures[0].copy().point(lambda _: 255) for _ in range(-len(pictures) % columns)]
    grid = make_image_grid(pictures, len(pictures) // columns, columns)
    replace_file(Path(config.output), grid.save)
