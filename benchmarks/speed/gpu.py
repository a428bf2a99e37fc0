"""The same on a GPU: images a second of updates and samples, and that an update makes the host wait for nothing.

python benchmarks/speed/gpu.py [--json gpu.json]

Needs nothing but the package and ten minutes of a CUDA device; images are random. CUDA events time blocks of updates,
so that the host runs ahead as it does in training. Networks are of the paper's sizes for 32x32 and 64x64.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DynamoBackend, TorchDynamoPlugin
from diffusers import UNet2DModel
from updates import make_config, make_objective

from diffusers_progdistill.data import ImageData
from diffusers_progdistill.pipelines.pipeline_progressive_distillation import ProgressiveDistillationPipeline
from diffusers_progdistill.schedulers import ProgressiveDistillationScheduler
from diffusers_progdistill.training.loop import train_stage
from diffusers_progdistill.training.monitor import Monitor
from diffusers_progdistill.training.setup import compiled
from diffusers_progdistill.training.stages import Stage
from diffusers_progdistill.training.teacher import default_unet_config


class Clock(Monitor):
    """Times blocks of updates by events on the device; reads of the device are errors between logging updates."""

    def __init__(self, accelerator, block: int, blocks: int):
        super().__init__(accelerator, None, 1)
        self.block, self.total, self.events, self.updates = block, blocks * block, [], 0
        self.cuda = accelerator.device.type == "cuda"

    def on_update(self):
        super().on_update()
        self.updates += 1
        if self.updates % self.block == 0:
            if self.cuda:
                event = torch.cuda.Event(enable_timing=True)
                event.record()
            self.events.append(event if self.cuda else time.perf_counter())
        if self.cuda and self.updates == 2 * self.block:
            # The first updates set things up: allocations, and what is compiled.
            torch.cuda.set_sync_debug_mode("error")
        if self.cuda and self.updates == self.total:
            # The loop reads its losses once more at the end.
            torch.cuda.set_sync_debug_mode("default")

    def on_log(self, *_):
        pass

    def seconds(self) -> list[float]:
        """Of each block but the first two."""
        if self.cuda:
            torch.cuda.synchronize()
            return [a.elapsed_time(b) / 1e3 for a, b in zip(self.events[2:], self.events[3:])]
        return [b - a for a, b in zip(self.events[2:], self.events[3:])]


def make_unet(size: int) -> UNet2DModel:
    """The default network of `train-teacher` for colour images of this size."""
    torch.manual_seed(0)
    return UNet2DModel(**default_unet_config(size, 3))


def updates_per_second(size: int, batch_size: int, precision: str, compiles: bool, blocks: int, block: int) -> dict:
    """Images a second of our update, and its peak memory beside what weights, moments and teacher need."""
    # Its settings are those of the whole process.
    AcceleratorState._reset_state(reset_partial_state=True)
    plugin = TorchDynamoPlugin(backend=DynamoBackend.INDUCTOR if compiles else DynamoBackend.NO)
    accelerator = Accelerator(
        mixed_precision=precision, dynamo_plugin=plugin, cpu=not torch.accelerator.is_available()
    )
    teacher = make_unet(size).to(accelerator.device).eval().requires_grad_(False)
    student = make_unet(size).to(accelerator.device)
    objective = make_objective(compiled(accelerator, teacher), accelerator.device)
    pixels = torch.randint(256, (max(512, batch_size), 3, size, size), dtype=torch.uint8).numpy()
    data, config = ImageData(list(pixels), None, 3, size), make_config(batch_size, logging_steps=10**9)
    clock, stage = Clock(accelerator, block, blocks), Stage("speed", 8, blocks * block, 5)
    clock.start(stage, 1, 1, batch_size)
    if clock.cuda:
        torch.cuda.reset_peak_memory_stats()
    train_stage(accelerator, student, objective, data, stage, config, clock)
    seconds = clock.seconds()
    memory = torch.cuda.max_memory_allocated() / 1e9 if clock.cuda else None
    states = sum(p.numel() for p in student.parameters()) * 4 * 5 / 1e9
    rate = batch_size * block / statistics.median(seconds)
    return {"images_per_second": rate, "peak_gb": memory, "weights_and_moments_gb": states, "blocks": len(seconds)}


@torch.no_grad()
def sampling(size: int, batch_size: int, steps: int, repeats: int, compiles: bool) -> dict:
    """Seconds of a few-step call: as it is, in bf16, compiled, and as one CUDA graph."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = {}
    for name in ("fp32", "bf16", "bf16, compiled", "bf16, CUDA graph"):
        if name.endswith("compiled") and not compiles or name.endswith("graph") and device != "cuda":
            continue
        unet = make_unet(size).to(device, torch.float32 if name == "fp32" else torch.bfloat16).eval()
        if name.endswith("compiled"):
            unet.forward = torch.compile(unet.forward)
        pipeline = ProgressiveDistillationPipeline(unet, ProgressiveDistillationScheduler())
        pipeline.set_progress_bar_config(disable=True)
        noise = torch.randn(batch_size, 3, size, size, device=device, dtype=unet.dtype)

        def call(pipeline=pipeline, noise=noise):
            return pipeline(batch_size, num_inference_steps=steps, latents=noise, output_type="latent").images

        for _ in range(3):
            call()
        if name.endswith("graph"):
            call = captured(pipeline, noise, steps)
        rows[name] = statistics.median(timed(call, device) for _ in range(repeats))
    return rows


def captured(pipeline, noise, steps: int):
    """A call of the pipeline's loop as one CUDA graph: its coefficients are numbers, so nothing is read in it."""
    pipeline.scheduler.set_timesteps(steps, device=noise.device)
    timesteps = list(pipeline.scheduler.timesteps)

    def loop():
        latents = noise
        for timestep in timesteps:
            output = pipeline.unet(latents, timestep, return_dict=False)[0]
            latents = pipeline.scheduler.step(output, timestep, latents, return_dict=False)[0]
        return latents

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            loop()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loop()
    return graph.replay


def timed(call, device: str) -> float:
    """Seconds of a call, until the device is done."""
    if device != "cuda":
        began = time.perf_counter()
        call()
        return time.perf_counter() - began
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    call()
    last.record()
    torch.cuda.synchronize()
    return first.elapsed_time(last) / 1e3


def main(argv: list[str] | None = None) -> list[dict]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="32,64")
    parser.add_argument("--batch_sizes", default="128,64", help="one for each size")
    parser.add_argument("--blocks", type=int, default=12)
    parser.add_argument("--block", type=int, default=10, help="updates that are timed at once")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--eager", action="store_true", help="without what must be compiled")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    lines, device = [], torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    print(f"torch {torch.__version__}, {device}")
    for size, batch_size in zip(options.sizes.split(","), options.batch_sizes.split(",")):
        size, batch_size = int(size), int(batch_size)
        for precision, compiles in (("no", False), ("bf16", False), ("bf16", True)):
            if compiles and (options.eager or device == "cpu"):
                continue
            row = updates_per_second(size, batch_size, precision, compiles, options.blocks, options.block)
            name = f"update, {size}x{size}, batch {batch_size}, {precision}{', compiled' * compiles}"
            lines.append({"row": name, **row})
            print(f"{name:<52}{row['images_per_second']:>10.0f} images/s  {row['peak_gb'] or 0:.1f} GB", flush=True)
        for count in (1, batch_size):
            for name, seconds in sampling(size, count, 4, options.repeats, not options.eager).items():
                row = {"row": f"4 steps, {size}x{size}, batch {count}, {name}", "seconds": seconds}
                lines.append({**row, "images_per_second": count / seconds})
                print(f"{row['row']:<52}{count / seconds:>10.0f} images/s  {1e3 * seconds:.2f} ms", flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps({"device": device, "rows": lines}, indent=1))
    return lines


if __name__ == "__main__":
    main()
