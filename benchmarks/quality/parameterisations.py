"""The paper's Table 1 on the digits: what the network predicts and how its error is weighted.

python benchmarks/quality/parameterisations.py OUTPUT

Twelve teachers, {x, epsilon, v, two-headed} x {SNR, truncated SNR, SNR + 1}, each with the demo's settings: distance
at 256 steps by ancestral sampling, by DDIM, and by DDIM that clips x in every step as the paper's does, then of the
student of 4 steps that is distilled with the same prediction and weighting. A run that was stopped goes on.
`--predictions` picks some, so that several processes, each with a folder of its own, can share them.
"""

import argparse
import dataclasses
from pathlib import Path

from measuring import Clipping, DigitFigures

from diffusers_progdistill.commands.demo import chain_config, teacher_config
from diffusers_progdistill.training.chain import distill
from diffusers_progdistill.training.teacher import train_teacher


PREDICTIONS = ("sample", "epsilon", "v_prediction", "sample_epsilon")
WEIGHTINGS = ("snr", "truncated_snr", "snr_plus_one")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--predictions", default=",".join(PREDICTIONS), help="some of them, by commas")
    parser.add_argument("--scale", type=float, default=1.0, help="fraction of the demo's updates")
    parser.add_argument("--num_images", type=int, default=2000)
    parser.add_argument("--seeds", default="1")
    parser.add_argument("--teacher_steps", type=int, default=256)
    options = parser.parse_args()
    figures = DigitFigures(options.folder, options.num_images, [int(s) for s in options.seeds.split(",")])
    for prediction in options.predictions.split(","):
        for weighting in WEIGHTINGS:
            name = f"{prediction}/{weighting}"
            folder = options.folder / f"{prediction}-{weighting}"
            shape = {"prediction_type": prediction, "weighting": weighting}
            try:
                train_teacher(dataclasses.replace(teacher_config(folder, options.scale), **shape))
                figures.add(name, folder / "teacher", [options.teacher_steps], ["progdistill", "ddpm"])
                figures.add(f"{name}, clipped", folder / "teacher", [options.teacher_steps], kind=Clipping)
                options_of_chain = {"end_steps": 4, "eval_images": 0, "loss_type": "l2", "clip_loss": False}
                distill(dataclasses.replace(chain_config(folder, options.scale), **options_of_chain, **shape))
                figures.add(f"{name}/4", folder / "steps-4", [4])
            except FloatingPointError as error:
                print(f"{name}: diverges ({error})", flush=True)
    figures.show()


if __name__ == "__main__":
    main()
