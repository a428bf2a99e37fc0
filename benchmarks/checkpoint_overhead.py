"""Seconds of one checkpoint of the demo's network against those of the 500 updates between two of them.

python benchmarks/checkpoint_overhead.py
"""

import statistics
import tempfile
import time
from pathlib import Path

from accelerate import Accelerator
from diffusers import UNet2DModel
from diffusers.training_utils import EMAModel

from diffusers_progdistill.training.checkpointing import Checkpoints
from diffusers_progdistill.training.config import DistillationConfig
from diffusers_progdistill.training.optimizer import make_optimizer
from diffusers_progdistill.training.teacher import default_unet_config


UPDATES = 40


def main():
    import torch

    accelerator = Accelerator(cpu=not torch.accelerator.is_available())
    model = UNet2DModel(**default_unet_config(8, 1)).to(accelerator.device)
    teacher = UNet2DModel(**default_unet_config(8, 1)).to(accelerator.device).eval()
    model, optimizer = accelerator.prepare(model, make_optimizer(DistillationConfig(), model))
    ema = EMAModel(model.parameters(), decay=0.99, foreach=True)
    x, t = torch.randn(128, 1, 8, 8, device=accelerator.device), torch.rand(128, device=accelerator.device) * 1000

    def update():
        with torch.no_grad():
            target = teacher(x, t).sample + teacher(x, t).sample
        accelerator.backward((model(x, t).sample - target).square().mean())
        optimizer.step()
        optimizer.zero_grad()
        ema.step(model.parameters())

    update()
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(accelerator, Path(folder), "steps-8", 2)
        checkpoints.attach({"model": model}, {"model": optimizer}, {"model": ema})
        saves, updates = [], []
        for k in range(1, 11):
            began = time.perf_counter()
            for _ in range(UPDATES):
                update()
            updates.append((time.perf_counter() - began) / UPDATES)
            began = time.perf_counter()
            checkpoints.save(k, {"seconds": 0.0, "mean_loss": 0.0, "health": [[0.0] * 5]})
            saves.append(time.perf_counter() - began)
    save, update = statistics.median(saves), statistics.median(updates)
    low, high = 1000 * min(saves), 1000 * max(saves)
    print(f"checkpoint {1000 * save:.0f} ms [{low:.0f}, {high:.0f}], update {1000 * update:.1f} ms")
    print(f"a checkpoint every 500 updates costs {100 * save / (500 * update):.2f} % of the time")


if __name__ == "__main__":
    main()
