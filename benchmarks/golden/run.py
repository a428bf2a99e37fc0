"""Small fixed runs on a CPU, whose weights and metrics are written to one file.

    python benchmarks/golden/run.py before.json --repository OLD_CLONE
    python benchmarks/golden/run.py after.json
    python benchmarks/golden/compare.py before.json after.json

The same commit gives the same file on one machine with one torch; another processor gives other bits. The script runs
at any commit that has `train-teacher` and `distill`: it asks `--help` what an option is called there.
"""

import argparse
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from safetensors.torch import load_file


# What changes from run to run, or says how long something took.
TIMES = {"seconds", "updates_per_second", "images_per_second", "eta_seconds", "eta", "time"}
BATCH = ["--train_batch_size", "32", "--learning_rate", "1e-3", "--report_to", "none", "--logging_steps", "4"]
DIGITS = ["--dataset_name", "digits", *BATCH]
PARTS = ["--loss_type", "huber", "--clip_loss", "--use_ema", "--adam_beta2", "0.99"]
CHAIN = ["--start_steps", "8", "--end_steps", "1", "--updates_per_stage", "12"]


class Golden:
    """Runs the commands of one commit in a folder of its own."""

    def __init__(self, repository: Path, folder: Path):
        self.folder = folder
        self.env = {**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        self.command = [sys.executable, "-m", "diffusers_progdistill.commands.main"]
        self.help = subprocess.run(
            [*self.command, "distill", "--help"], env=self.env, capture_output=True, text=True, check=True
        ).stdout

    def name_option(self, *names: str) -> str:
        """The first of several names that this commit's `distill` knows."""
        return next(name for name in names if re.search(rf"{name}\b", self.help))

    def run(self, name: str, *options, processes: int = 1):
        """Run `progdistill NAME OPTIONS` to its end."""
        start = self.command
        if processes > 1:
            torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
            start = [sys.executable, *torchrun, *self.command[1:]]
        done = subprocess.run(
            [*start, name, *map(str, options)], env=self.env, cwd=self.folder, capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(f"{name} {options} ended with {done.returncode}:\n{done.stderr[-3000:]}")

    def run_interrupted(self, name: str, *options, folder: str):
        """Run it, ask it to stop once a checkpoint of the second stage is there, and go on."""
        process = subprocess.Popen(
            [*self.command, name, *map(str, options)],
            env=self.env,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None and not list((self.folder / folder).glob("checkpoints/steps-2-*")):
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        if (status := process.wait()) != 128 + signal.SIGTERM:
            raise SystemExit(f"the interrupted run ended with {status}, not with {128 + signal.SIGTERM}")
        self.run(name, *options)


def make_stock_teacher(folder: Path):
    """A class-conditional epsilon model on linear betas, with random weights and a null class."""
    torch.manual_seed(5)
    unet = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        add_attention=False,
        num_class_embeds=11,
    )
    scheduler = DDPMScheduler()
    scheduler.register_to_config(_progdistill={"num_classes": 10, "null_label": 10})
    DDPMPipeline(unet, scheduler).save_pretrained(folder)


def run_all(golden: Golden):
    """Every kind of run, in folders named after what is special of them."""
    teacher = ["--max_train_steps", "40", "--lr_warmup_steps", "4", "--ema_decay", "0.9"]
    updates = golden.name_option("--conversion_updates", "--adopt_updates")
    given = ["--pretrained_teacher_model", "teacher"]
    golden.run("train-teacher", *DIGITS, *teacher, "--output_dir", "teacher")
    heads = ["--prediction_type", "sample_epsilon"]
    golden.run("train-teacher", *DIGITS, *teacher, *heads, "--output_dir", "two-heads-teacher")
    golden.run("distill", *DIGITS, *PARTS, *CHAIN, *given, "--output_dir", "default")
    paper = ["--recipe", "paper", *CHAIN]
    golden.run("distill", *DIGITS, *paper, *given, "--output_dir", "paper")
    reused = ["--start_steps", "16", "--end_steps", "1", "--updates_per_stage", "12", "--stage_factor", "4"]
    reused += ["--teacher_solver", "midpoint", "--reuse_targets", "2", "--random_flip"]
    golden.run("distill", *DIGITS, *PARTS, *reused, *given, "--output_dir", "midpoint-4-reuse")
    make_stock_teacher(golden.folder / "stock")
    guided = ["--class_column", "label", "--guidance_scale", "2", updates, "16", "--pretrained_teacher_model", "stock"]
    golden.run("distill", *DIGITS, *CHAIN, *guided, "--output_dir", "guided")
    two_heads = ["--pretrained_teacher_model", "two-heads-teacher"]
    golden.run("distill", *DIGITS, *PARTS, *CHAIN, *two_heads, "--output_dir", "two-heads")
    stochastic = ["--start_steps", "4", "--end_steps", "4", "--updates_per_stage", "12", "--stochastic_sampler"]
    stochastic += ["--pretrained_teacher_model", "default/steps-4"]
    golden.run("distill", *DIGITS, *stochastic, "--output_dir", "stochastic")
    resumed = [*DIGITS, *PARTS, *CHAIN, *given, "--checkpointing_steps", "3", "--output_dir", "resumed"]
    golden.run_interrupted("distill", *resumed, folder="resumed")
    half = [*DIGITS, *PARTS, *CHAIN, *given, "--train_batch_size", "16", "--output_dir", "two-processes"]
    golden.run("distill", *half, processes=2)


def hash_weights(path: Path) -> str:
    """sha256 of a file's tensors, by name; what else the file says does not count."""
    digest = hashlib.sha256()
    for name, tensor in sorted(load_file(path).items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def read_metrics(path: Path) -> list[dict]:
    """The lines of a metrics.jsonl without what is a time."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("output", help="where the file is written")
    parser.add_argument("--repository", default=Path(__file__).parents[2], help="the clone that is run")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        golden = Golden(Path(args.repository).resolve(), Path(folder))
        run_all(golden)
        weights = sorted(golden.folder.rglob("unet/*.safetensors"))
        result = {
            "torch": torch.__version__,
            "weights": {str(p.parent.parent.relative_to(folder)): hash_weights(p) for p in weights},
            "metrics": {p.parent.name: read_metrics(p) for p in sorted(golden.folder.rglob("metrics.jsonl"))},
        }
    Path(args.output).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
