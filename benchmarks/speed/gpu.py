"""The same on a GPU: images a second of updates and samples, and that an update makes the host wait for nothing.

python benchmarks/speed/gpu.py [--json gpu.json]

Needs nothing but the package and ten minutes of a CUDA device; images are random. CUDA events time blocks of updates,
so that the host runs ahead as it does in training; blocks of ours and of the floor (the four network calls, clipping,
the optimizer) take turns. Networks are of the paper's sizes for 32x32 and 64x64.
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
from updates import make_config, make_objective, make_task

from diffusers_progdistill.data import ImageData
from diffusers_progdistill.families.unet2d_network import default_unet_config
from diffusers_progdistill.pipelines.pipeline_progressive_distillation import ProgressiveDistillationPipeline
from diffusers_progdistill.schedulers import ProgressiveDistillationScheduler
from diffusers_progdistill.training.launcher import prepare_frozen
from diffusers_progdistill.training.loop import StageTrainer
from diffusers_progdistill.training.monitor import Monitor
from diffusers_progdistill.training.optimizer import make_optimizer
from diffusers_progdistill.training.run import Run


class Clock(Monitor):
    """
    Times blocks of updates by events on the device, in turns with blocks of another side; reads of the device are
    errors between logging updates.
    """

    def __init__(self, accelerator, block: int, blocks: int, other=None):
        super().__init__(accelerator, None, 1)
        self.block, self.total, self.other, self.updates = block, blocks * block, other, 0
        self.cuda, self.peak = accelerator.device.type == "cuda", None
        self.blocks, self.other_blocks = [], []

    def resume(self, first_update: int):
        super().resume(first_update)
        self.turn = self._now()

    def on_update(self):
        super().on_update()
        self.updates += 1
        if self.updates % self.block:
            return
        # The first blocks set things up: allocations, and what is compiled.
        warm = self.updates > 2 * self.block
        if warm:
            self.blocks.append((self.turn, self._now()))
        if self.cuda and self.updates == 2 * self.block:
            self.peak = torch.cuda.max_memory_allocated() / 1e9
            torch.cuda.set_sync_debug_mode("error")
        if self.other is not None and self.updates >= 2 * self.block:
            began = self._now()
            for _ in range(self.block):
                self.other()
            if warm:
                self.other_blocks.append((began, self._now()))
        if self.cuda and self.updates == self.total:
            # The loop reads its losses once more at the end.
            torch.cuda.set_sync_debug_mode("default")
        self.turn = self._now()

    def on_log(self, *_):
        pass

    def _now(self):
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, blocks) -> list[float]:
        """Of each block."""
        if self.cuda:
            torch.cuda.synchronize()
        return [a.elapsed_time(b) / 1e3 if self.cuda else b - a for a, b in blocks]


class Floor:
    """What no distillation update can do without, with tensors that are there already."""

    def __init__(self, accelerator, teacher, size: int, batch_size: int):
        self.autocast, self.teacher, self.student = accelerator.autocast, teacher, make_unet(size).to(teacher.device)
        self.optimizer = make_optimizer(make_config(batch_size), self.student.train())
        self.z, self.target = (torch.randn(batch_size, 3, size, size, device=teacher.device) for _ in range(2))
        self.timestep = torch.rand(batch_size, device=teacher.device) * 1000

    def __call__(self):
        with torch.no_grad(), self.autocast():
            self.teacher(self.z, self.timestep, return_dict=False)
            self.teacher(self.z, self.timestep, return_dict=False)
        with self.autocast():
            output = self.student(self.z, self.timestep, return_dict=False)[0]
        (output.float() - self.target).square().mean().backward()
        torch.nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


def make_unet(size: int) -> UNet2DModel:
    """The default network of `train-teacher` for colour images of this size."""
    torch.manual_seed(0)
    return UNet2DModel(**default_unet_config(size, 3))


# What an update is tried with: its --mixed_precision, and what differs from the package's other defaults.
VARIANTS = {
    "fp32": ("no", ()),
    "bf16": ("bf16", ()),
    "bf16, channels_last": ("bf16", ("channels_last",)),
    "bf16, compiled": ("bf16", ("compiled",)),
    "bf16, compiled, channels_last": ("bf16", ("compiled", "channels_last")),
}


def updates_per_second(size: int, batch_size: int, variant: str, blocks: int, block: int) -> dict:
    """Images a second of our update, and its peak memory beside what weights, moments and teacher need."""
    precision, switches = VARIANTS[variant]
    # Its settings are those of the whole process.
    AcceleratorState._reset_state(reset_partial_state=True)
    backend = DynamoBackend.INDUCTOR if "compiled" in switches else DynamoBackend.NO
    accelerator = Accelerator(
        mixed_precision=precision,
        dynamo_plugin=TorchDynamoPlugin(backend=backend),
        cpu=not torch.accelerator.is_available(),
    )
    layout = torch.channels_last if "channels_last" in switches else torch.contiguous_format
    teacher = make_unet(size).to(accelerator.device, memory_format=layout).eval().requires_grad_(False)
    student = make_unet(size).to(accelerator.device, memory_format=layout)
    objective = make_objective(student, prepare_frozen(accelerator, teacher), accelerator.device)
    pixels = torch.randint(256, (max(512, batch_size), 3, size, size), dtype=torch.uint8).numpy()
    config = make_config(batch_size, logging_steps=10**9)
    floor = None if switches else Floor(accelerator, teacher, size, batch_size)
    clock, task = Clock(accelerator, block, blocks, floor), make_task(objective, blocks * block)
    clock.start(task.stage, 1, 1, batch_size)
    if clock.cuda:
        torch.cuda.reset_peak_memory_stats()
    run = Run(config, accelerator, ImageData(list(pixels), None, 3, size), batch_size)
    StageTrainer(run, task, clock).train()
    seconds, others = clock.seconds(clock.blocks), clock.seconds(clock.other_blocks)
    row = {
        "images_per_second": batch_size * block / statistics.median(seconds),
        "milliseconds": [1e3 * s / block for s in seconds],
        "peak_gb": clock.peak,
        "weights_and_moments_gb": sum(p.numel() for p in student.parameters()) * 4 * 5 / 1e9,
        "blocks": len(seconds),
    }
    if others:
        row["floor_milliseconds"] = [1e3 * s / block for s in others]
        row["of_floor"] = statistics.median(a / b for a, b in zip(seconds, others))
    return row


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
    parser.add_argument("--variants", default="; ".join(VARIANTS), help="of updates, by semicolons")
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
        for variant in options.variants.split("; "):
            if "compiled" in variant and (options.eager or device == "cpu"):
                continue
            row = updates_per_second(size, batch_size, variant, options.blocks, options.block)
            name = f"update, {size}x{size}, batch {batch_size}, {variant}"
            lines.append({"row": name, **row})
            floor = f"  {row['of_floor']:.3f} of the floor" if "of_floor" in row else ""
            rate, memory = row["images_per_second"], row["peak_gb"] or 0
            print(f"{name:<56}{rate:>10.0f} images/s  {memory:.1f} GB{floor}", flush=True)
        for count in (1, batch_size):
            for name, seconds in sampling(size, count, 4, options.repeats, not options.eager).items():
                row = {"row": f"4 steps, {size}x{size}, batch {count}, {name}", "seconds": seconds}
                lines.append({**row, "images_per_second": count / seconds})
                print(f"{row['row']:<56}{count / seconds:>10.0f} images/s  {1e3 * seconds:.2f} ms", flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps({"device": device, "rows": lines}, indent=1))
    return lines


if __name__ == "__main__":
    main()
