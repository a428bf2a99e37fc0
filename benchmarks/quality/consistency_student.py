"""The baseline of a chain: one consistency student of the same teacher, at the same cost in forward passes.

python benchmarks/quality/consistency_student.py train --config CONFIG.yaml --output_dir consistency --forward_passes N
python benchmarks/quality/consistency_student.py measure consistency --config CONFIG.yaml --evaluation FOLDER

It is `progdistill distill --objective consistency` (see `objectives/consistency.py`); an update costs 5 forward
passes. Sampled as its authors do, with fresh noise after each step ("consistency"), and by DDIM, with the noise that
its prediction implies ("consistency, DDIM").
"""

import argparse
import dataclasses
from pathlib import Path

import torch
from accelerate import Accelerator

from diffusers_progdistill.commands.parsing import parse
from diffusers_progdistill.data import load_data
from diffusers_progdistill.evaluation.figures import Evaluation, EvaluationSettings, Subject
from diffusers_progdistill.evaluation.metrics import load_metrics
from diffusers_progdistill.evaluation.store import format_table, summarize_rows
from diffusers_progdistill.pipelines.pipeline_progressive_distillation import ProgressiveDistillationPipeline
from diffusers_progdistill.processes.base import NoiseLevel, add_noise
from diffusers_progdistill.training.chain import distill
from diffusers_progdistill.training.config import DistillationConfig


class ConsistencyPipeline(ProgressiveDistillationPipeline):
    """
    Multistep consistency sampling at u = 1, (N - 1)/N, ... 1/N. For two steps that is t = tan(phi) = 1,
    where the authors take 0.8 and 1.5; for more than two they search.
    """

    fresh_noise = True

    @torch.no_grad()
    def __call__(self, batch_size, class_labels, num_inference_steps, generator, latents, **_):
        denoiser, count = self.denoiser, num_inference_steps
        labels = self.prepare_class_labels(class_labels, batch_size, self.device)
        conditioning = {} if labels is None else {"class_labels": labels}
        z = latents.to(self.device)
        for i in range(count, 0, -1):
            angle, time = (torch.full((batch_size,), v, device=self.device) for v in denoiser.process.level(i / count))
            x = denoiser.predict_x0(z, NoiseLevel(angle, time), conditioning)
            if i > 1:
                if self.fresh_noise:
                    noise = torch.stack([torch.randn(z.shape[1:], generator=g) for g in generator]).to(z)
                else:
                    angles = angle[:, None, None, None]
                    noise = (z - torch.cos(angles) * x) / torch.sin(angles)
                z = add_noise(x, noise, torch.tensor(denoiser.process.level((i - 1) / count)[0]))
        return argparse.Namespace(images=self.decode(x, "pt"))


def train(config: DistillationConfig, forward_passes: int):
    """Train the student into `steps-1` of the output folder; a run that was stopped goes on."""
    updates = round(forward_passes / 5)
    # Its targets move with its target network, so each serves one update. A student of one step gets twice the
    # updates; the teacher's steps do not count.
    options = {"start_steps": 2, "end_steps": 1, "updates_per_stage": updates // 2, "reuse_targets": 1}
    options |= {"stage_factor": 2, "teacher_solver": None, "weighting": None, "loss_type": None, "clip_loss": None}
    distill(dataclasses.replace(config, objective="consistency", **options))


def measure(config: DistillationConfig, folder: Path, options):
    """Add its figures to the `evaluation.json` of a folder, with the noise and the features of the others."""
    accelerator, pipelines = Accelerator(cpu=not torch.accelerator.is_available()), []
    for fresh in (True, False):
        pipeline = ConsistencyPipeline.from_pretrained(folder / "steps-1").to(accelerator.device)
        pipeline.unet.eval().requires_grad_(False)
        pipeline.fresh_noise = fresh
        pipelines.append(("consistency" if fresh else "consistency, DDIM", pipeline))
    unet = pipelines[0][1].unet.config
    data = load_data(config, unet.in_channels, unet.sample_size)
    config.feature_extractor = options.feature_extractor
    metrics = load_metrics(config, config.feature_extractor, options.num_images, data, accelerator)
    seeds, steps = ([int(word) for word in text.split(",")] for text in (options.seeds, options.steps))
    settings = EvaluationSettings(options.num_images, tuple(seeds))
    evaluation = Evaluation(options.evaluation, accelerator, metrics, settings)
    rows = evaluation.run([Subject(name, pipeline, steps) for name, pipeline in pipelines])
    print(format_table(summarize_rows(rows)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["train", "measure"])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--forward_passes", type=int)
    parser.add_argument("--evaluation", type=Path, default=Path())
    parser.add_argument("--num_images", type=int, default=2000)
    parser.add_argument("--seeds", default="1,2,3,4,5")
    parser.add_argument("--steps", default="1,2,4,8")
    parser.add_argument("--feature_extractor", default="classifier")
    options, rest = parser.parse_known_args()
    config = parse(DistillationConfig, rest, "progdistill distill", "the rest: options of `progdistill distill`")
    if options.what == "train":
        train(config, options.forward_passes)
    else:
        measure(config, options.folder, options)


if __name__ == "__main__":
    main()
