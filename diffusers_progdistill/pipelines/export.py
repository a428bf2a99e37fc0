"""The stored form of a model: stock diffusers wherever stock diffusers can sample it. The one writer of that form."""

import json
import os
import shutil
from pathlib import Path

from diffusers import DDIMScheduler, ModelMixin, SchedulerMixin, UNet2DModel
from diffusers import __version__ as diffusers_version

from ..schedulers import ProgressiveDistillationScheduler
from ..schedulers.scheduling_progressive_distillation import METADATA_KEY


STOCK_PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")


def is_stock_sampleable(unet: UNet2DModel, scheduler: ProgressiveDistillationScheduler) -> bool:
    """
    Whether `DDIMPipeline` gives the images of [`ProgressiveDistillationPipeline`]: no class labels, a prediction type
    it knows, no stochastic sampler and, since its timesteps are integers, a number of steps that divides
    `num_train_timesteps`.
    """
    steps = scheduler.num_trained_steps
    return (
        unet.config.num_class_embeds is None
        and unet.config.class_embed_type is None
        and not scheduler.has_stochastic_sampler
        and scheduler.config.prediction_type in STOCK_PREDICTION_TYPES
        and (steps is None or scheduler.config.num_train_timesteps % steps == 0)
    )


def attach_metadata(scheduler: ProgressiveDistillationScheduler, **metadata) -> ProgressiveDistillationScheduler:
    """
    A copy of the scheduler whose config carries `metadata` (JSON values), besides what it carries already, under a
    key that stock diffusers keeps and ignores.
    """
    copy = ProgressiveDistillationScheduler.from_config(scheduler.config)
    copy.register_to_config(**{METADATA_KEY: {**(scheduler.config.get(METADATA_KEY) or {}), **metadata}})
    return copy


def save_pipeline(
    unet: UNet2DModel,
    scheduler: ProgressiveDistillationScheduler,
    save_directory: str | os.PathLike,
    safe_serialization: bool = True,
    variant: str | None = None,
    max_shard_size: int | str | None = None,
) -> None:
    """
    Write a complete pipeline folder: `model_index.json`, `unet/`, `scheduler/`.

    The component entries name stock classes, so that `DiffusionPipeline.from_pretrained` needs neither this package
    nor `trust_remote_code`. Only for what [`is_stock_sampleable`] denies is the pipeline class ours.

    Args:
        unet ([`UNet2DModel`]): The model, unwrapped.
        scheduler ([`ProgressiveDistillationScheduler`]): Written as a `DDIMScheduler` that holds the schedule as
            `trained_betas` and our metadata beside it.
        save_directory (`str` or `os.PathLike`): Created if it does not exist.
        safe_serialization, variant, max_shard_size: As [`~ModelMixin.save_pretrained`].
    """
    save_directory = Path(save_directory)
    stock = is_stock_sampleable(unet, scheduler)
    save_directory.mkdir(parents=True, exist_ok=True)
    shards = {} if max_shard_size is None else {"max_shard_size": max_shard_size}
    unet.save_pretrained(save_directory / "unet", safe_serialization=safe_serialization, variant=variant, **shards)
    forget_origin(save_directory / "unet" / "config.json")
    make_stock_scheduler(scheduler).save_pretrained(save_directory / "scheduler")
    index = {
        "_class_name": "DDIMPipeline" if stock else "ProgressiveDistillationPipeline",
        "_diffusers_version": diffusers_version,
        "scheduler": ["diffusers", "DDIMScheduler"],
        "unet": ["diffusers", "UNet2DModel"],
    }
    (save_directory / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def forget_origin(path: Path) -> None:
    """Take the folder that a model was once loaded from out of its config: it is a path of this machine."""
    config = json.loads(path.read_text(encoding="utf-8"))
    if config.pop("_name_or_path", None) is not None:
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def make_stock_scheduler(scheduler: ProgressiveDistillationScheduler) -> DDIMScheduler:
    """The scheduler's config as a `DDIMScheduler`'s, with our metadata under the underscore key."""
    config = {k: v for k, v in scheduler.config.items() if not k.startswith("_")}
    # DDIM never reads the schedule's name beside the betas themselves, but must know the one it finds.
    config["beta_schedule"] = "squaredcos_cap_v2" if config["beta_schedule"] == "cosine" else config["beta_schedule"]
    stock = DDIMScheduler.from_config(config)
    if scheduler.config.get(METADATA_KEY):
        stock.register_to_config(**{METADATA_KEY: scheduler.config[METADATA_KEY]})
    return stock


def replace_component(
    origin: Path, name: str, network: ModelMixin, scheduler: SchedulerMixin, save_directory: Path
) -> None:
    """
    Write a copy of a pipeline's folder in which one network and the scheduler are others. Components that stay are
    links to the files of `origin` where the file system has links.

    Args:
        origin (`Path`): The folder of the pipeline that the network was made of.
        name (`str`): The component that the network is, such as `"transformer"`.
        network ([`ModelMixin`]): The new network, unwrapped.
        scheduler ([`ProgressiveDistillationScheduler`]): Written as a `DDIMScheduler`.
        save_directory (`Path`): Created if it does not exist.
    """
    index = json.loads((origin / "model_index.json").read_text(encoding="utf-8"))
    save_directory.mkdir(parents=True, exist_ok=True)
    for other in index:
        if other not in (name, "scheduler") and (origin / other).is_dir():
            shutil.copytree(origin / other, save_directory / other, copy_function=link_file, dirs_exist_ok=True)
    network.save_pretrained(save_directory / name)
    forget_origin(save_directory / name / "config.json")
    make_stock_scheduler(scheduler).save_pretrained(save_directory / "scheduler")
    index.pop("_name_or_path", None)
    own = {name: ["diffusers", type(network).__name__], "scheduler": ["diffusers", "DDIMScheduler"]}
    index = {**index, **own, "_diffusers_version": diffusers_version}
    (save_directory / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def link_file(source: str, target: str) -> None:
    """A second name of a file, or a copy where there can be none."""
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copy2(source, target)
