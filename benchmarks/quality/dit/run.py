"""A small latent DiT on Fashion-MNIST, from nothing to students of 8, 4 and 2 steps, and how far they are from it.

apt-get install dataset-fashion-mnist
OMP_NUM_THREADS=1 python benchmarks/quality/dit/run.py FOLDER

An autoencoder, a `DiTPipeline` and two chains are trained one after the other on the 10,000 images of the smaller
part, in under 25 minutes on one core. What is finished is not done again, and an interrupted training goes on at its
newest checkpoint. FOLDER/students-figures.json then holds the Frechet distances of flattened latents to those of the
training images, by Gaussian moments, and the PSNR of decoded images to those of the teacher at `--teacher_steps`, from
the same noise.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel

from diffusers_progdistill.denoisers.codec import LatentCodec
from diffusers_progdistill.evaluation.distances import compute_psnr, frechet_distance
from diffusers_progdistill.families import open_model
from diffusers_progdistill.pipelines.source import ModelSource


PREPARE = Path(__file__).parents[1] / "fashion_mnist" / "prepare.py"
sys.path.insert(0, str(PREPARE.parent))
from prepare import read  # noqa: E402


BATCH, CHECKPOINT_UPDATES, LOG_UPDATES = 64, 250, 100
BETAS = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear", "clip_sample": False}


def say(text: str):
    """One line of the log, with the time of day."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def train(
    network: torch.nn.Module, compute_loss: Callable[[torch.Generator], torch.Tensor], updates: int, path: Path
) -> torch.nn.Module:
    """
    Train a network by Adam, its rate falling from 1e-3 by half a cosine, and return the average of its last weights.

    Args:
        network (`torch.nn.Module`): Fresh, of a fixed seed.
        compute_loss (`Callable`): The loss of an update, which draws everything from the generator it is given.
        updates (`int`): Their number.
        path (`Path`): Where checkpoints are kept.
    """
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    decay = torch.optim.swa_utils.get_ema_multi_avg_fn(0.995)
    average = torch.optim.swa_utils.AveragedModel(network, multi_avg_fn=decay, use_buffers=True)
    parts = {"network": network, "optimizer": optimizer, "schedule": schedule, "average": average}
    first, began, network = 0, time.monotonic(), network.train()
    if path.exists():
        state = torch.load(path)
        first = state.pop("update")
        for name, values in state.items():
            parts[name].load_state_dict(values)
        say(f"{path.stem}: going on after update {first}")
    for update in range(first, updates):
        loss = compute_loss(torch.Generator().manual_seed(update))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step(), schedule.step(), average.update_parameters(network)
        if (update + 1) % LOG_UPDATES == 0:
            speed = (update + 1 - first) / (time.monotonic() - began)
            say(f"{path.stem}: update {update + 1} of {updates}, loss {loss.item():.4f}, {speed:.1f} updates/s")
        if (update + 1) % CHECKPOINT_UPDATES == 0:
            torch.save({"update": update + 1, **{k: v.state_dict() for k, v in parts.items()}}, path)
    return average.module.eval()


def draw(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The numbers of a batch."""
    return torch.randint(len(images), (BATCH,), generator=generator)


def train_autoencoder(images: torch.Tensor, updates: int, folder: Path) -> AutoencoderKL:
    """An autoencoder of a quarter of the side and 4 channels; scaled, its latents have a standard deviation of 1."""
    torch.manual_seed(0)
    vae = AutoencoderKL(
        in_channels=1, out_channels=1, latent_channels=4, block_out_channels=(8, 16, 32), layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3, norm_num_groups=8,
        mid_block_add_attention=False, sample_size=images.shape[-1], scaling_factor=1.0,
    )  # fmt: skip

    def compute_loss(generator: torch.Generator) -> torch.Tensor:
        pixels = images[draw(images, generator)] / 127.5 - 1
        posterior = vae.encode(pixels).latent_dist
        error = vae.decode(posterior.sample(generator)).sample - pixels
        return error.square().mean() + error.abs().mean() + 1e-5 * posterior.kl().mean()

    made = train(vae, compute_loss, updates, folder / "autoencoder.pt")
    made.register_to_config(scaling_factor=1 / LatentCodec(made).encode(images[:2000]).std().item())
    return made


def train_transformer(
    latents: torch.Tensor, labels: torch.Tensor, updates: int, folder: Path
) -> DiTTransformer2DModel:
    """A transformer that predicts epsilon, with as many classes as stock diffusers' null class asks for."""
    torch.manual_seed(1)
    network = DiTTransformer2DModel(
        sample_size=latents.shape[-1], in_channels=4, out_channels=4, patch_size=1, num_attention_heads=4,
        attention_head_dim=16, num_layers=2, num_embeds_ada_norm=1000,
    )  # fmt: skip
    alphas_cumprod = DDIMScheduler(**BETAS).alphas_cumprod

    def compute_loss(generator: torch.Generator) -> torch.Tensor:
        numbers, noise = draw(latents, generator), torch.randn(BATCH, *latents.shape[1:], generator=generator)
        # The network drops labels by torch's own generator.
        torch.manual_seed(generator.initial_seed())
        times = torch.randint(len(alphas_cumprod), (BATCH,), generator=generator)
        alpha = alphas_cumprod[times].sqrt().view(-1, 1, 1, 1)
        z = alpha * latents[numbers] + (1 - alpha**2).sqrt() * noise
        output = network(z, timestep=times, class_labels=labels[numbers]).sample
        return (output - noise).square().mean()

    return train(network, compute_loss, updates, folder / "transformer.pt")


def encode(codec: LatentCodec, images: torch.Tensor) -> torch.Tensor:
    """The latents of all images."""
    return torch.cat([codec.encode(some) for some in images.split(500)])


def distill(teacher: Path, output: Path, options: argparse.Namespace, *words: str):
    """
    A chain by the command; one that is finished already says so. The first step starts where x is epsilon's error
    times 160, so that the noisy end must weigh more than epsilon's own error does.
    """
    words = (
        *(f"--pretrained_teacher_model={teacher}", f"--output_dir={output}", "--class_column=label"),
        *(f"--train_data_dir={options.folder / 'fashion-mnist.parquet'}", f"--train_batch_size={BATCH}"),
        *(f"--updates_per_stage={options.student_updates}", f"--learning_rate={options.learning_rate}"),
        *("--report_to=none", "--checkpointing_steps=100", "--weighting=truncated_snr", *words, *options.more.split()),
    )
    say(f"progdistill distill {' '.join(words)}")
    command = [sys.executable, "-m", "diffusers_progdistill.commands.main", "distill", *words]
    subprocess.run(command, check=True)


@torch.no_grad()
def sample(folder: Path, steps: int | None, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents and images (`uint8`) of a model, of all classes in turn; the noise is that of its number."""
    model, latents = open_model(ModelSource(str(folder))), []
    model.pipeline.set_progress_bar_config(disable=True)
    noise = torch.randn(model.pipeline.latents_shape(count), generator=torch.Generator().manual_seed(0))
    for numbers in torch.arange(count).split(250):
        call = {"num_inference_steps": steps, "latents": noise[numbers], "output_type": "latent"}
        latents.append(model.pipeline(len(numbers), (numbers % 10).tolist(), **call).images)
    images = torch.cat([model.codec.decode(some) for some in torch.cat(latents).split(250)])
    return torch.cat(latents), (images * 255).round().byte()


def measure(options: argparse.Namespace, models: dict[str, tuple[Path, int]], real: torch.Tensor, path: Path):
    """Add the figures of each model at a number of steps to a file; the first is what the others are compared with."""
    figures = json.loads(path.read_text()) if path.exists() else {}
    reference, images = next(iter(models)), None
    for name, (folder, steps) in models.items():
        if name in figures:
            continue
        if images is None:
            of_reference, images = sample(*models[reference], options.num_images)
        latents, made = (of_reference, images) if name == reference else sample(folder, steps, options.num_images)
        distance = frechet_distance(real.flatten(1), latents.flatten(1))
        figures[name] = {
            "frechet_distance": distance,
            "ratio": distance / figures.get(reference, {"frechet_distance": distance})["frechet_distance"],
            "psnr_to_teacher": compute_psnr(made, images).mean().item(),
        }
        say(f"{name}: {json.dumps(figures[name])}")
        path.write_text(json.dumps(figures, indent=2) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--autoencoder_updates", type=int, default=600)
    parser.add_argument("--transformer_updates", type=int, default=600)
    parser.add_argument("--student_updates", type=int, default=120)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--more", default="", help="more options of `progdistill distill`, as one word")
    parser.add_argument("--chain", default="students", help="name of the chains' folders")
    parser.add_argument("--teacher_steps", type=int, default=64)
    parser.add_argument("--num_images", type=int, default=2000)
    options = parser.parse_args()
    folder, teacher = options.folder, options.folder / "teacher"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "fashion-mnist.parquet").exists():
        words = [str(folder / "fashion-mnist.parquet"), "--folder", str(options.data), "--part", "t10k"]
        subprocess.run([sys.executable, str(PREPARE), *words], check=True)
    (images, labels), (others, _) = (map(torch.tensor, read(options.data, part)) for part in ("t10k", "train"))
    images, others, labels = images[:, None], others[: options.num_images, None], labels.long()
    if not (teacher / "model_index.json").exists():
        vae_folder = folder / "vae"
        if not vae_folder.exists():
            train_autoencoder(images, options.autoencoder_updates, folder).save_pretrained(vae_folder)
        vae = AutoencoderKL.from_pretrained(vae_folder)
        say(f"the autoencoder's latents are scaled by {vae.config.scaling_factor:.4f}")
        latents = encode(LatentCodec(vae), images)
        transformer = train_transformer(latents, labels, options.transformer_updates, folder)
        DiTPipeline(transformer, vae, DDIMScheduler(**BETAS)).save_pretrained(teacher)
    first, rest = folder / f"{options.chain}-8", folder / options.chain
    distill(teacher, first, options, "--start_steps=32", "--end_steps=8", "--stage_factor=4")
    distill(first / "steps-8", rest, options, "--start_steps=8", "--end_steps=2")
    codec = LatentCodec(AutoencoderKL.from_pretrained(teacher, subfolder="vae"))
    real, other = encode(codec, images), encode(codec, others)
    say(f"as many other real images: {frechet_distance(real.flatten(1), other.flatten(1)):.2f}")
    models = {
        f"teacher, {options.teacher_steps} steps": (teacher, options.teacher_steps),
        "student of 8 steps": (first / "steps-8", None),
        **{f"student of {n} steps": (rest / f"steps-{n}", None) for n in (4, 2)},
        **{f"teacher, {n} steps": (teacher, n) for n in (8, 4, 2)},
    }
    measure(options, models, real, folder / f"{options.chain}-figures.json")


if __name__ == "__main__":
    main()
