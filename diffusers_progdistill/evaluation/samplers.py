"""The samplers that a model can be measured with: its own, and stock diffusers' that need no training."""

from collections.abc import Callable

import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    SchedulerMixin,
    UniPCMultistepScheduler,
)

from ..processes.prediction import to_sample


# The model's own: what it was trained for.
OWN = "progdistill"

# Stock schedulers on the grid that ends a step below the last timestep, with no clipping: each at its best.
STOCK: dict[str, Callable[[dict], SchedulerMixin]] = {
    "ddim": lambda config: DDIMScheduler.from_config(config, timestep_spacing="trailing"),
    # A learned variance is not asked for.
    "ddpm": lambda config: DDPMScheduler.from_config(
        config, timestep_spacing="trailing", variance_type=fixed_variance(config.get("variance_type"))
    ),
    "dpmsolver++": lambda config: DPMSolverMultistepScheduler.from_config(
        config, timestep_spacing="trailing", algorithm_type="dpmsolver++", solver_order=2
    ),
    "unipc": lambda config: UniPCMultistepScheduler.from_config(config, timestep_spacing="trailing", solver_order=2),
}
SAMPLERS = (OWN, *STOCK)


def fixed_variance(variance_type: str | None) -> str:
    """DDPM's own variance in place of a learned one."""
    return "fixed_small" if variance_type is None or variance_type.startswith("learned") else variance_type


@torch.no_grad()
def sample(
    pipeline,
    sampler: str,
    num_steps: int,
    noise: torch.Tensor,
    generators: list[torch.Generator],
    labels: list[int] | None = None,
    guidance_scale: float = 1.0,
) -> torch.Tensor:
    """
    Images from noise by one of [`SAMPLERS`].

    Args:
        pipeline ([`ProgressiveDistillationPipeline`]): The model.
        sampler (`str`): Its name.
        num_steps (`int`): Sampling steps; network evaluations too, of all of these samplers.
        noise (`torch.Tensor` of shape `(batch_size, channels, height, width)`): What sampling starts from.
        generators (`list[torch.Generator]`): One an image, for the fresh noise of samplers that need some.
        labels (`list[int]`, *optional*): Classes.
        guidance_scale (`float`, defaults to 1.0): See [`ProgressiveDistillationPipeline`].

    Returns:
        `torch.Tensor`: In [0, 1], of the shape of the noise.
    """
    count = len(noise)
    if sampler == OWN:
        return pipeline(
            count,
            labels,
            num_steps,
            generators,
            latents=noise,
            output_type="pt",
            guidance_scale=guidance_scale,
        ).images
    device, schedule = pipeline._execution_device, pipeline.scheduler.schedule
    labels = pipeline.prepare_class_labels(labels, count, device)
    config = dict(pipeline.scheduler.config, clip_sample=False, thresholding=False)
    merged = config["prediction_type"] == "sample_epsilon"
    scheduler = STOCK[sampler](config | ({"prediction_type": "sample"} if merged else {}))
    scheduler.set_timesteps(num_steps, device=device)
    latents = noise.to(device, pipeline.unet.dtype) * scheduler.init_noise_sigma
    # DDIM and the solvers draw nothing; asked whether it takes a generator, DDIM would use it for eta alone.
    options = {"generator": generators} if sampler == "ddpm" else {}
    for timestep in scheduler.timesteps:
        output = pipeline.predict(scheduler.scale_model_input(latents, timestep), timestep, labels, guidance_scale)
        if merged:
            angle = torch.tensor(schedule.angle(float(timestep)), dtype=torch.float64)
            output = to_sample(output, latents, angle.cos().item(), angle.sin().item(), "sample_epsilon")
        latents = scheduler.step(output, timestep, latents, **options, return_dict=False)[0]
    return pipeline.decode(latents, "pt")
