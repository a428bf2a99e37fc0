"""The samplers that a model can be measured with: its own, and stock diffusers' that need no training."""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    SchedulerMixin,
    UniPCMultistepScheduler,
)

from ..pipelines.pipeline_progressive_distillation import ProgressiveDistillationPipeline
from ..processes.prediction import to_sample


# The model's own: what it was trained for.
OWN = "progdistill"

# Stock schedulers, each at its best.
STOCK: dict[str, tuple[type[SchedulerMixin], dict[str, Any]]] = {
    "ddim": (DDIMScheduler, {}),
    "ddpm": (DDPMScheduler, {}),
    "dpmsolver++": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    "unipc": (UniPCMultistepScheduler, {"solver_order": 2}),
}
SAMPLERS = (OWN, *STOCK)


@dataclass(frozen=True)
class SamplingOptions:
    """How images are made of their numbers; the seed and its number make the noise of an image."""

    num_steps: int
    seed: int = 0
    guidance_scale: float = 1.0
    sampler: str = OWN


def make_scheduler(sampler: str, config: dict[str, Any]) -> SchedulerMixin:
    """A stock scheduler on the grid that ends a step below the last timestep, with no clipping."""
    kind, options = STOCK[sampler]
    config = dict(config, clip_sample=False, thresholding=False)
    # A learned variance is not asked for.
    if (config.get("variance_type") or "learned").startswith("learned"):
        config["variance_type"] = "fixed_small"
    return kind.from_config(config, timestep_spacing="trailing", **options)


@torch.no_grad()
def sample(
    pipeline: ProgressiveDistillationPipeline,
    options: SamplingOptions,
    noise: torch.Tensor,
    generators: list[torch.Generator],
    labels: list[int] | None = None,
) -> torch.Tensor:
    """Images in [0, 1] from their noise; the generators, one an image, make the fresh noise of some samplers."""
    count, num_steps, scale = len(noise), options.num_steps, options.guidance_scale
    if options.sampler == OWN:
        own = {"latents": noise, "output_type": "pt", "guidance_scale": scale}
        return pipeline(count, labels, num_steps, generators, **own).images
    device, schedule = pipeline._execution_device, pipeline.scheduler.schedule
    labels = pipeline.prepare_class_labels(labels, count, device)
    config = dict(pipeline.scheduler.config)
    merged = config["prediction_type"] == "sample_epsilon"
    scheduler = make_scheduler(options.sampler, config | ({"prediction_type": "sample"} if merged else {}))
    scheduler.set_timesteps(num_steps, device=device)
    latents = noise.to(device, pipeline.denoiser.network.dtype) * scheduler.init_noise_sigma
    # DDIM and the solvers draw nothing; asked whether it takes a generator, DDIM would use it for eta alone.
    fresh = {"generator": generators} if options.sampler == "ddpm" else {}
    for timestep in scheduler.timesteps:
        output = pipeline.predict(scheduler.scale_model_input(latents, timestep), timestep, labels, scale)
        if merged:
            angle = torch.tensor(schedule.angle(float(timestep)), dtype=torch.float64)
            output = to_sample(output, latents, angle.cos().item(), angle.sin().item(), "sample_epsilon")
        latents = scheduler.step(output, timestep, latents, **fresh, return_dict=False)[0]
    return pipeline.decode(latents, "pt")
