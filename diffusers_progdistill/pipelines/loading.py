"""The one door for models: whatever a command is given, from a folder or the Hub, comes in through [`load_model`]."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path

import diffusers
import torch
from diffusers import SchedulerMixin, UNet2DModel
from huggingface_hub import HfApi, hf_hub_download

from ..denoisers.heads import accept_network
from ..errors import InputError, describe_reason
from ..schedulers import ProgressiveDistillationScheduler
from ..schedulers.configs import check_values, check_variance_preserving, unknown_keys
from ..trust import check_model_files, find_code, read_json
from .pipeline_progressive_distillation import ProgressiveDistillationPipeline
from .weights import listed, load_unet


logger = logging.getLogger(__name__)

INDEX_NAME = "model_index.json"
# The parts of a pipeline that sample its images in pixels.
COMPONENTS = ("unet", "scheduler")
# Pipelines that do nothing but denoise pixels with a network on a schedule; names of 2022 among them.
PIXEL_PIPELINES = {
    *("ProgressiveDistillationPipeline", "DDPMPipeline", "DDIMPipeline", "PNDMPipeline", "DDPM", "DDIM", "PNDM"),
    *("ConsistencyModelPipeline", "DiffusionPipeline"),
}


@dataclass(frozen=True)
class ModelSource:
    """
    Where a model comes from, and how far it is trusted.

    Attributes:
        name (`str`): A diffusers pipeline folder, or a name on the Hub.
        flag (`str`): What a message calls it, for example the option that named it.
        cache_dir, token, revision, variant, trust_remote_code (*optional*): As [`~DiffusionPipeline.from_pretrained`].
    """

    name: str
    flag: str = "model"
    cache_dir: str | None = None
    token: str | None = None
    revision: str | None = None
    variant: str | None = None
    trust_remote_code: bool = False

    @property
    def what(self) -> str:
        """What a message calls the model."""
        return f"{self.flag} {self.name}" if self.flag else self.name


def load_model(source: ModelSource) -> ProgressiveDistillationPipeline:
    """
    A model from a folder or the Hub as it is best used: its weights fit and are finite, a learned variance is dropped,
    and a foreign schedule is sampled without clipping. Nothing that comes with it runs unless it is trusted.

    Args:
        source ([`ModelSource`]): Which one.

    Raises:
        [`InputError`]: If there is none, it cannot be trusted, or it is no `UNet2DModel` that denoises pixels.
    """
    folder = find_folder(source)
    check_model_files(folder, source.what, source.trust_remote_code)
    index = read_json(folder / INDEX_NAME, source.what)
    check_components(index, source.what)
    unet = scheduler = None
    if _library_of(index, "unet") == "diffusers":
        place = _place_of(folder, "unet", "config.json")
        config = read_json(place / "config.json", source.what)
        if config.get("_class_name", "UNet2DModel") != "UNet2DModel":
            raise InputError(f"{source.what} has a {config['_class_name']}: it must be a UNet2DModel")
        unet = load_unet(place, config, source.what, source.variant, lambda: _names_on_the_hub(source))
    if _library_of(index, "scheduler") == "diffusers":
        scheduler = load_scheduler(_place_of(folder, "scheduler", "scheduler_config.json"), index, source.what)
    if source.trust_remote_code and find_code(index, folder):
        unet, scheduler = _load_code(source, folder, unet, scheduler)
    for name, part in (("unet", unet), ("scheduler", scheduler)):
        if part is None:
            raise InputError(
                f"{source.what} has a {name} of {'.'.join(map(str, index[name]))}: it must be one of diffusers"
            )
    unet = accept_network(unet, source.what, scheduler.config.prediction_type)
    return ProgressiveDistillationPipeline(unet, unclipped(scheduler))


def read_class_name(source: ModelSource) -> str | None:
    """The pipeline class that a model's index names; `None` if there is no index here that can be read."""
    try:
        if os.path.isdir(source.name):
            path = Path(source.name, INDEX_NAME)
        else:
            where = {"revision": source.revision, "cache_dir": source.cache_dir, "token": source.token}
            path = Path(hf_hub_download(source.name, INDEX_NAME, **where))
        return _shown(read_json(path, source.what).get("_class_name"))
    except Exception:  # the family that opens it says what is wrong
        return None


def find_folder(source: ModelSource) -> Path:
    """
    The local folder of a model; one on the Hub is downloaded, and refused before that if its index says enough.

    Raises:
        [`InputError`]: If there is none.
    """
    name, what = source.name, source.what
    if os.path.isfile(name):
        raise InputError(f"{what} is a file: give a diffusers pipeline folder, or a name on the Hub")
    if os.path.isdir(name):
        if not Path(name, INDEX_NAME).exists():
            raise InputError(f"{what} has no {INDEX_NAME}: give a diffusers pipeline folder")
        return Path(name)
    if os.path.isabs(name) or name.startswith((".", "~")) or name.count("/") != 1:
        raise InputError(f"{what} is not a folder: give a diffusers pipeline folder")
    where = {"revision": source.revision, "cache_dir": source.cache_dir, "token": source.token}
    try:
        index = hf_hub_download(name, INDEX_NAME, **where)
        check_components(read_json(Path(index), what), what)
        options = {"variant": source.variant, "trust_remote_code": source.trust_remote_code}
        return Path(ProgressiveDistillationPipeline.download(name, **where, **options))
    except InputError:
        raise
    except Exception as error:  # diffusers and the Hub client raise many kinds for what is one thing to a user
        raise InputError(f"{what} cannot be loaded from the Hub: {describe_reason(error)}") from error


def _names_on_the_hub(source: ModelSource) -> list[str]:
    """The names of a network's files in a repository, as far as they can be asked for."""
    if os.path.isdir(source.name):
        return []
    try:
        paths = HfApi(token=source.token).list_repo_files(source.name, revision=source.revision)
    except Exception:  # only a hint depends on it
        return []
    return [Path(path).name for path in paths if Path(path).parent.name in ("", "unet")]


def check_components(index: dict, what: str):
    """Refuse a pipeline that does more than denoise pixels with a `UNet2DModel` on a schedule."""
    name = index.get("_class_name")
    components = {k: v for k, v in index.items() if not k.startswith("_") and _is_component(v)}
    if others := sorted(components.keys() - set(COMPONENTS)):
        named = [f"{k} ({components[k][1]})" for k in others]
        raise InputError(
            f"{what} is a {_shown(name)} with {listed(named)}: only a UNet2DModel that works on pixels, and a"
            " scheduler, can be used"
        )
    if missing := [k for k in COMPONENTS if k not in components]:
        raise InputError(f"{what} is a {_shown(name)} without {' and '.join(missing)}: it must have both")
    library, kind = components["unet"]
    if library == "diffusers" and kind != "UNet2DModel":
        raise InputError(f"{what} has a {kind}: it must be a UNet2DModel")
    if isinstance(name, str) and _makes_other_images(name):
        raise InputError(f"{what} is a {name}: it must be a DDPMPipeline, a DDIMPipeline or another of that kind")
    if name is not None and _shown(name) not in PIXEL_PIPELINES:
        logger.warning("%s is a %s, which is not used: its network is, on its schedule", what, _shown(name))


def _makes_other_images(name: str) -> bool:
    """Whether diffusers has a pipeline of this name, which is none of those that only denoise pixels."""
    on_betas = {"RePaintPipeline"}
    # The class of a schedule without betas says more than that of its pipeline.
    named_by_schedule = {"ScoreSdeVePipeline", "KarrasVePipeline"}
    return hasattr(diffusers, name) and name not in PIXEL_PIPELINES | on_betas | named_by_schedule


def _is_component(value) -> bool:
    """A library and a class; both are null for a component that is left out."""
    return isinstance(value, (list, tuple)) and len(value) == 2 and value[0] is not None and value[1] is not None


def _library_of(index: dict, name: str) -> str:
    return index[name][0]


def _shown(name) -> str:
    return name[-1] if isinstance(name, (list, tuple)) and name else str(name or "pipeline")


def _place_of(folder: Path, name: str, config_name: str) -> Path:
    """The folder of a component. In checkpoints of 2022 it may be the pipeline's own."""
    return folder / name if (folder / name).is_dir() or not (folder / config_name).exists() else folder


def load_scheduler(folder: Path, index: dict, what: str) -> ProgressiveDistillationScheduler:
    """
    Our scheduler on the schedule of a `scheduler_config.json`, of any release.

    Raises:
        [`InputError`]: If it is none, or not variance preserving.
    """
    config, kind = read_json(folder / "scheduler_config.json", what), index["scheduler"][1]
    if not hasattr(diffusers, str(kind)):
        raise InputError(f"{what} has a {kind}: its scheduler must be one of diffusers, such as DDPMScheduler")
    try:
        check_variance_preserving(config)
        check_values(config)
    except ValueError as error:
        raise InputError(f"{what} has a schedule that cannot be used: {error}") from error
    # diffusers makes what the index names, with the defaults of that class.
    config["_class_name"] = kind
    if unknown := unknown_keys(config):
        logger.warning("%s: keys of its scheduler that diffusers does not know are ignored: %s", what, listed(unknown))
        config = {k: v for k, v in config.items() if k not in unknown}
    try:
        return ProgressiveDistillationScheduler.from_config(config)
    except Exception as error:  # wrong values raise many kinds
        raise InputError(f"{what} has a schedule that cannot be used: {describe_reason(error)}") from error


def _load_code(source: ModelSource, folder: Path, unet: UNet2DModel | None, scheduler: SchedulerMixin | None):
    """The network and the schedule of a trusted folder that brings code of its own."""
    parts = {k: v for k, v in {"unet": unet, "scheduler": scheduler}.items() if v is not None}
    options = {"variant": source.variant if unet is None else None, "trust_remote_code": True}
    try:
        pipeline = ProgressiveDistillationPipeline.from_pretrained(folder, **parts, **options)
    except Exception as error:  # whatever that code raises
        raise InputError(f"{source.what} cannot be loaded with its own code: {describe_reason(error)}") from error
    own = pipeline.scheduler
    if not isinstance(own, ProgressiveDistillationScheduler):
        own = ProgressiveDistillationScheduler.from_config(own.config)
    return pipeline.unet, own


def unclipped(scheduler: ProgressiveDistillationScheduler) -> ProgressiveDistillationScheduler:
    """
    A foreign schedule as the teacher is best sampled on it. Stock configs ask to clip x in every step, which makes
    many steps worse than few, and would flatter the students.
    """
    if scheduler.schedule.is_canonical:
        return scheduler
    return ProgressiveDistillationScheduler.from_config(scheduler.config, clip_sample=False, thresholding=False)


def read_network_config(source: ModelSource) -> dict:
    """
    The config of a `UNet2DModel`: of a `config.json`, of its folder, of a pipeline's folder, or of a name on the Hub.

    Raises:
        [`InputError`]: If there is none, or it is of another network.
    """
    name, what = source.name, source.what
    if os.path.isfile(name):
        config = read_json(Path(name), what)
    elif os.path.isdir(name):
        places = [Path(name, "config.json"), Path(name, "unet", "config.json")]
        found = [place for place in places if place.is_file()]
        if not found:
            raise InputError(f"{what} has no config.json: give a UNet2DModel's config.json, its folder or its name")
        config = read_json(found[0], what)
    else:
        config = _network_config_on_the_hub(source)
    if config.get("_class_name", "UNet2DModel") != "UNet2DModel":
        raise InputError(f"{what} is the config of a {config['_class_name']}: it must be a UNet2DModel's")
    return {k: v for k, v in config.items() if not k.startswith("_")}


def _network_config_on_the_hub(source: ModelSource) -> dict:
    where = {"revision": source.revision, "cache_dir": source.cache_dir, "token": source.token}
    failure = None
    for subfolder in (None, "unet"):
        try:
            path = Path(hf_hub_download(source.name, "config.json", subfolder=subfolder, **where))
            return read_json(path, source.what)
        except InputError:
            raise
        except Exception as error:  # the Hub client raises many kinds
            failure = failure or error
    raise InputError(f"{source.what} cannot be read: {describe_reason(failure)}") from failure


def find_device() -> torch.device:
    """The device that accelerate would take: the accelerator that torch finds, unless ACCELERATE_USE_CPU says no."""
    asked_for_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes", "on")
    if asked_for_cpu or not torch.accelerator.is_available():
        return torch.device("cpu")
    return torch.accelerator.current_accelerator()
