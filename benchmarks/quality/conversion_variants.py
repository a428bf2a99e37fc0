"""What a converted student should start from, and where an epsilon teacher should hand over to the data.

python benchmarks/quality/stock_teacher.py stock-digits
python benchmarks/quality/conversion_variants.py stock-digits

Each row: the weighted error of x against the teacher (log-SNR quintiles of the range that all rows teach), and the
Frechet distance at 64 steps, two sampling seeds.
"""

import argparse
import copy
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from diffusers_progdistill.data import load_digits
from diffusers_progdistill.diffusion import conversion
from diffusers_progdistill.evaluation.metrics import ImageMetrics
from diffusers_progdistill.evaluation.sampling import generate
from diffusers_progdistill.pipelines.loading import unclip
from diffusers_progdistill.pipelines.pipeline_progressive_distillation import ProgressiveDistillationPipeline
from diffusers_progdistill.processes.betas import add_noise, cosine_angle, log_snr, time_to_timestep
from diffusers_progdistill.processes.prediction import to_sample
from diffusers_progdistill.training import convert, network
from diffusers_progdistill.training.config import ConversionConfig


def agreement(student, teacher, data, quintiles=5, count=2000):
    """Root mean square difference of x, student against teacher, by quintile of the log-SNR from -5 to 12."""
    generator = torch.Generator().manual_seed(7)
    images = data.all_images()[:1797].float() / 127.5 - 1
    values = torch.linspace(-5, 12, count)
    angle = torch.atan(torch.exp(-values / 2))
    index = torch.randint(len(images), (count,), generator=generator)
    z = add_noise(
        images[index], torch.randn(count, *images.shape[1:], generator=generator), angle[:, None, None, None]
    )
    kind = student.scheduler.config.prediction_type
    t = (angle.double() - cosine_angle(0.0)) / (cosine_angle(1.0) - cosine_angle(0.0))
    with torch.no_grad():
        theirs, _ = teacher.predict(z, angle, None)
        output = student.unet(z, time_to_timestep(t).float(), return_dict=False)[0]
    alpha, sigma = torch.cos(angle)[:, None, None, None], torch.sin(angle)[:, None, None, None]
    error = (to_sample(output, z, alpha, sigma, kind) - theirs).square().flatten(1).mean(1)
    error = error * torch.exp(values).clamp(min=1)
    assert torch.allclose(log_snr(angle), values, atol=1e-2)
    return [part.mean().sqrt().item() for part in error.chunk(quintiles)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("teacher")
    parser.add_argument("--updates", type=int, default=1000)
    parser.add_argument("--rows", default="keep,zero,cut-20,cut-12,cut-8,cut-6,cut-4")
    parser.add_argument("--learning_rate", type=float, default=2e-3)
    parser.add_argument("--num_images", type=int, default=2000)
    parser.add_argument("--prediction_type", default="v_prediction")
    options = parser.parse_args()
    metric = ImageMetrics(load_digits())
    data = load_digits()
    teacher = ProgressiveDistillationPipeline.from_pretrained(options.teacher)
    teacher = ProgressiveDistillationPipeline(teacher.unet, unclip(teacher.scheduler))
    row = [metric.distance(generate(teacher, options.num_images, 64, seed)) for seed in (1, 2)]
    print("teacher", " ".join(f"{v:.2f}" for v in row), flush=True)
    make_converted_network = network.make_converted_network
    for name in options.rows.split(","):
        name, _, updates = name.partition(":")

        cut = next((p.removeprefix("cut-") for p in name.split("+") if p.startswith("cut-")), "10")
        conversion.EPSILON_LOG_SNR_MIN = -float(cut)

        def start(*arguments, zero="zero" in name):
            made = make_converted_network(*arguments)
            if zero:
                made.conv_out.weight.data.zero_(), made.conv_out.bias.data.zero_()
            return made

        convert.make_converted_network = start
        with TemporaryDirectory() as folder:
            config = ConversionConfig(
                output_dir=str(Path(folder, "out")),
                pretrained_teacher_model=options.teacher,
                prediction_type=options.prediction_type,
                weighting="snr" if "snr" in name else None,
                dataset_name="digits",
                report_to="none",
                conversion_updates=int(updates or options.updates),
                train_batch_size=64,
                learning_rate=options.learning_rate,
                lr_warmup_steps=20,
                adam_beta2=0.99,
                use_ema=True,
                logging_steps=1000,
            )
            run = convert.open_run(copy.copy(config))
            first, _, scheduler = convert.build_conversion(run)
            before = agreement(
                ProgressiveDistillationPipeline(first.eval(), scheduler), run.teacher.as_conversion_teacher(), data
            )
            began = time.perf_counter()
            convert.convert(config)
            seconds = time.perf_counter() - began
            student = ProgressiveDistillationPipeline.from_pretrained(config.output_dir)
        student.unet.eval()
        after = agreement(student, run.teacher.as_conversion_teacher(), data)
        fd = [metric.distance(generate(student, options.num_images, 64, seed)) for seed in (1, 2)]
        print(
            f"{name:<24}{seconds:5.0f} s  before {' '.join(f'{v:.3f}' for v in before)}"
            f"  after {' '.join(f'{v:.3f}' for v in after)}  FD64 {' '.join(f'{v:.2f}' for v in fd)}",
            flush=True,
        )


if __name__ == "__main__":
    main()
