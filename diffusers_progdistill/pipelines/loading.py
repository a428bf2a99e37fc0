"""Models that denoise pixels, read from a folder that was checked."""

import logging
from pathlib import Path

import diffusers
import torch
from accelerate.utils import parse_flag_from_env
from diffusers import UNet2DModel

from ..denoisers.heads import accept_network
from ..errors import InputError, describe_reason
from ..schedulers import ProgressiveDistillationScheduler
from ..schedulers.configs import check_values, translate_config
from ..trust import find_code, read_json
from .pipeline_progressive_distillation import ProgressiveDistillationPipeline
from .source import ModelSource, find_place
from .weights import build_from_config, listed, load_network


logger = logging.getLogger(__name__)

# The parts of a pipeline that sample its images in pixels.
COMPONENTS = ("unet", "scheduler")
# Pipelines that do nothing but denoise pixels with a network on a schedule; names of 2022 among them. The class of a
# schedule without betas says more than that of its pipeline, so those are not refused for their names.
PIXEL_PIPELINES = {
    *("ProgressiveDistillationPipeline", "DDPMPipeline", "DDIMPipeline", "PNDMPipeline", "DDPM", "DDIM", "PNDM"),
    *("ConsistencyModelPipeline", "DiffusionPipeline", "ScoreSdeVePipeline", "KarrasVePipeline", "RePaintPipeline"),
}


def load_pipeline(source: ModelSource, folder: Path, index: dict) -> ProgressiveDistillationPipeline:
    """
    The model in a folder that was checked, whose `model_index.json` is `index`, as it is best used: its weights fit
    and are finite, a learned variance is dropped, and any schedule but ours is sampled without clipping.
    """
    parts = {}
    if index["unet"][0] == "diffusers":
        parts["unet"] = load_network(UNet2DModel, find_place(folder, "unet"), source)
    if index["scheduler"][0] == "diffusers":
        place = find_place(folder, "scheduler", "scheduler_config.json")
        parts["scheduler"] = load_scheduler(place, index["scheduler"][1], source.what)
    if find_code(index, folder):
        parts = _load_code(source, folder, parts)
    for name in COMPONENTS:
        if name not in parts:
            kind = ".".join(map(str, index[name]))
            raise InputError(f"{source.what} has a {name} of {kind}: it must be one of diffusers")
    unet = accept_network(parts["unet"], source.what, parts["scheduler"].config.prediction_type)
    return ProgressiveDistillationPipeline(unet, unclip(parts["scheduler"]))


def check_components(index: dict, what: str) -> None:
    """Refuse a pipeline that does more than denoise pixels with a `UNet2DModel` on a schedule."""
    name = index.get("_class_name") or "DiffusionPipeline"
    # A class of its own code stands beside the file that has it.
    name = str(name[-1] if isinstance(name, list) else name)
    # A library and a class each; both are null for a component that is left out.
    pairs = {k: v for k, v in index.items() if not k.startswith("_") and isinstance(v, list) and len(v) == 2}
    components = {k: v for k, v in pairs.items() if None not in v}
    if others := [f"{k} ({v[1]})" for k, v in components.items() if k not in COMPONENTS]:
        raise InputError(
            f"{what} is a {name} with {listed(others)}: only a UNet2DModel that works on pixels, and a scheduler, can"
            " be used"
        )
    if missing := [k for k in COMPONENTS if k not in components]:
        raise InputError(f"{what} is a {name} without {' and '.join(missing)}: it must have both")
    library, kind = components["unet"]
    if library == "diffusers" and kind != "UNet2DModel":
        raise InputError(f"{what} has a {kind}: it must be a UNet2DModel")
    if name not in PIXEL_PIPELINES:
        if hasattr(diffusers, name):
            raise InputError(f"{what} is a {name}: it must be a DDPMPipeline, a DDIMPipeline or another of that kind")
        logger.warning("%s is a %s, which is not used: its network is, on its schedule", what, name)


def load_scheduler(folder: Path, kind: str, what: str) -> ProgressiveDistillationScheduler:
    """Our scheduler on the schedule of a `scheduler_config.json`, of any release; `kind` is its class."""
    if not hasattr(diffusers, str(kind)):
        raise InputError(f"{what} has a {kind}: its scheduler must be one of diffusers, such as DDPMScheduler")
    # diffusers makes what the index names, with the defaults of that class.
    config = {**read_json(folder / "scheduler_config.json", what), "_class_name": kind}
    try:
        check_values(config)
        config = translate_config(config, ProgressiveDistillationScheduler)
        return build_from_config(ProgressiveDistillationScheduler, config, what)
    except Exception as error:  # wrong values raise many kinds
        raise InputError(f"{what} has a schedule that cannot be used: {describe_reason(error)}") from error


def _load_code(source: ModelSource, folder: Path, parts: dict) -> dict:
    """The network and the schedule of a trusted folder that brings code of its own; `parts` are of diffusers."""
    options = {"variant": None if "unet" in parts else source.variant, "trust_remote_code": True}
    try:
        pipeline = ProgressiveDistillationPipeline.from_pretrained(folder, **parts, **options)
        scheduler = ProgressiveDistillationScheduler.from_config(pipeline.scheduler.config)
    except Exception as error:  # whatever that code raises
        raise InputError(f"{source.what} cannot be loaded with its own code: {describe_reason(error)}") from error
    return {"unet": pipeline.unet, "scheduler": scheduler}


def unclip(scheduler: ProgressiveDistillationScheduler) -> ProgressiveDistillationScheduler:
    """
    Any schedule but ours as the teacher is best sampled on it. Stock configs ask to clip x in every step, which makes
    many steps worse than few, and would flatter the students.
    """
    if scheduler.schedule.is_canonical:
        return scheduler
    return ProgressiveDistillationScheduler.from_config(scheduler.config, clip_sample=False, thresholding=False)


def read_network_config(source: ModelSource) -> dict:
    """The config of a `UNet2DModel`: of a file, its folder, a pipeline's folder, or a name on the Hub."""
    what, failures = source.what, []
    for name in ("config.json", "unet/config.json"):
        path = Path(source.name)
        try:
            config = read_json(path if path.is_file() else source.find_file(name), what)
            break
        except Exception as error:  # the Hub client raises many kinds
            failures.append(error)
    else:
        raise InputError(f"{what} has no config of a UNet2DModel: {describe_reason(failures[0])}") from failures[0]
    if config.get("_class_name", "UNet2DModel") != "UNet2DModel":
        raise InputError(f"{what} is the config of a {config['_class_name']}: it must be a UNet2DModel's")
    return {k: v for k, v in config.items() if not k.startswith("_")}


def find_device() -> torch.device:
    """The device that accelerate would take: the accelerator that torch finds, unless ACCELERATE_USE_CPU says no."""
    if parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available():
        return torch.device("cpu")
    return torch.accelerator.current_accelerator()
