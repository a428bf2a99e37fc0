"""Train a teacher as diffusers' unconditional example does: epsilon, linear betas, T = 1000, as a `DDPMPipeline`.

Nothing of this package is used but the images, so that the folder is what people have.

python benchmarks/quality/stock_teacher.py stock-digits
python benchmarks/quality/stock_teacher.py stock-digits-classes --classes
"""

import argparse

import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from tqdm.auto import tqdm

from diffusers_progdistill.data import load_digits


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--updates", type=int, default=8000)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--learning_rate", type=float, default=2e-3)
    parser.add_argument("--beta_schedule", default="linear")
    parser.add_argument("--classes", action="store_true", help="class-conditional")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    data = load_digits()
    images = data.all_images().float() / 127.5 - 1
    unet = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
        norm_num_groups=8,
        add_attention=False,
        num_class_embeds=10 if options.classes else None,
    )
    scheduler = DDPMScheduler(beta_schedule=options.beta_schedule)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=options.learning_rate, weight_decay=0, fused=True)
    rate = get_scheduler("linear", optimizer, num_warmup_steps=100, num_training_steps=options.updates)
    ema = EMAModel(unet.parameters(), decay=0.998, foreach=True)
    for _ in tqdm(range(options.updates)):
        index = torch.randint(len(images), (options.batch_size,))
        noise = torch.randn(options.batch_size, *images.shape[1:])
        timesteps = torch.randint(scheduler.config.num_train_timesteps, (options.batch_size,))
        labels = data.labels[index] if options.classes else None
        output = unet(scheduler.add_noise(images[index], noise, timesteps), timesteps, labels).sample
        torch.nn.functional.mse_loss(output, noise).backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        rate.step()
        optimizer.zero_grad()
        ema.step(unet.parameters())
    ema.copy_to(unet.parameters())
    DDPMPipeline(unet, scheduler).save_pretrained(options.folder)


if __name__ == "__main__":
    main()
