"""Sampling: what a step costs beside the network, and what a pipeline costs beside its network calls."""

import torch
from diffusers import DDIMPipeline, DDIMScheduler, DPMSolverMultistepScheduler
from networks import make_network
from timing import interleaved, row

from diffusers_progdistill import ProgressiveDistillationPipeline, ProgressiveDistillationScheduler


SIZE = {"demo, 8x8": 8, "0.3 M, 28x28": 28}


def schedulers() -> dict:
    """Ours and the stock ones, on the same schedule."""
    ours = ProgressiveDistillationScheduler(prediction_type="v_prediction")
    config = dict(ours.config, clip_sample=False)
    return {
        "ours": ours,
        "stock DDIM": DDIMScheduler.from_config(config, timestep_spacing="trailing"),
        "stock DPM-Solver++": DPMSolverMultistepScheduler.from_config(config, timestep_spacing="trailing"),
    }


def step_rows(repeats: int, steps: int = 8, size: int = 8) -> list[dict]:
    """Microseconds of a scheduler's step of one image, `return_dict=False`: the mean of a whole loop's."""
    sample, output = torch.randn(1, 1, size, size), torch.randn(1, 1, size, size)

    def loop(scheduler):
        def run():
            scheduler.set_timesteps(steps)
            latents = sample
            for timestep in scheduler.timesteps:
                latents = scheduler.step(output, timestep, latents, return_dict=False)[0]

        def prepare():
            scheduler.set_timesteps(steps)
            for _ in scheduler.timesteps:
                pass

        return run, prepare

    sides = {name: loop(scheduler) for name, scheduler in schedulers().items()}
    with torch.no_grad():
        whole = interleaved({name: run for name, (run, _) in sides.items()}, repeats)
        # The grid is made once a call; what is left is the steps'.
        grid = interleaved({name: prepare for name, (_, prepare) in sides.items()}, repeats)
    middle = {name: sorted(seconds)[len(seconds) // 2] for name, seconds in grid.items()}
    times = {name: [(s - middle[name]) / steps for s in seconds] for name, seconds in whole.items()}
    return row(f"scheduler step, 1 image of {size}x{size}", times, "ours", "us")


def pipeline_rows(network: str, batch_size: int, steps: int, repeats: int) -> list[dict]:
    """A pipeline's call beside as many bare network calls; ours, stock DDIM and DPM-Solver++."""
    unet = make_network(network).eval().requires_grad_(False)
    size = SIZE[network]
    latents, made = torch.randn(batch_size, 1, size, size), schedulers()
    timesteps = [torch.tensor(float(t)) for t in range(steps)]
    ours = ProgressiveDistillationPipeline(unet, made["ours"])
    ours.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)

    def bare():
        for timestep in timesteps:
            unet(latents, timestep, return_dict=False)

    def stock(scheduler):
        def run():
            scheduler.set_timesteps(steps)
            sample = latents
            for timestep in scheduler.timesteps:
                sample = scheduler.step(unet(sample, timestep, return_dict=False)[0], timestep, sample)[0]
            return (sample / 2 + 0.5).clamp(0, 1)

        return run

    ddim = DDIMPipeline(unet, made["stock DDIM"])
    ddim.set_progress_bar_config(disable=True)
    sides = {
        "network calls alone": bare,
        "ours": lambda: ours(batch_size, num_inference_steps=steps, latents=latents, output_type="pt"),
        "DDIMPipeline": lambda: ddim(
            batch_size, num_inference_steps=steps, generator=generator, output_type="np", return_dict=False
        ),
        "DPM-Solver++ loop": stock(made["stock DPM-Solver++"]),
    }
    with torch.no_grad():
        times = interleaved(sides, repeats)
    return row(f"{steps}-step sampling, {network}, batch {batch_size}", times, "network calls alone")
