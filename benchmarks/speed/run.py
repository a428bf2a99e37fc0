"""How fast: updates, sampling, start-up, checkpoints, data, evaluation. See docs/performance.md.

python benchmarks/speed/run.py [--threads 1] [--rows updates,peers,...] [--json speed.json]
    [--openai CHECKOUT] [--hramchenko CHECKOUT]

Sides that do the same work are timed in turns in one process. The machine must have nothing else to do. Checkouts of
openai/consistency_models and Hramchenko/diffusion_distiller are wanted for the `peers` rows only.
"""

import argparse
import json
import platform
import sys
from pathlib import Path

import diffusers
import torch


sys.path.insert(0, str(Path(__file__).parent))
import others  # noqa: E402
import peers  # noqa: E402
import samplers  # noqa: E402
import updates  # noqa: E402
from networks import make_images  # noqa: E402
from timing import row, table  # noqa: E402


# Rounding of a few float32 operations on values of about 1.
TARGET_TOLERANCE = 1e-4


def update_rows(options) -> list[dict]:
    """Our update against the floor."""
    lines = []
    sizes = (("demo, 8x8", 8),) if options.small else (("demo, 8x8", 128), ("1 M, 28x28", 8))
    for network, batch_size in sizes:
        for ema in (False, True):
            floor = {"floor": updates.Floor(network, batch_size)}
            times = updates.against(network, batch_size, floor, options.repeats, ema=ema)
            lines += row(f"update, {network}, batch {batch_size}{', average' * ema}", times, "floor")
    return lines


def peer_rows(options) -> list[dict]:
    """Peers' updates against ours."""
    network, batch_size, sides = "0.4 M, 16x16", 8, {"floor": updates.Floor("0.4 M, 16x16", 8)}
    images = make_images(network).all_images()[:batch_size].float() / 127.5 - 1
    for name, make in (("openai", peers.openai_update), ("hramchenko", peers.hramchenko_update)):
        checkout = getattr(options, name)
        if checkout is None or not checkout.is_dir():
            print(f"{name}: skipped, give --{name} CHECKOUT", file=sys.stderr)
        else:
            sides[name] = make(checkout, network, batch_size, images)
    times = updates.against(network, batch_size, sides, options.repeats, ema=True, loss_type="l2")
    return row(f"update, {network}, batch {batch_size}, average", times, "ours")


def sampling_rows(options) -> list[dict]:
    """Schedulers' steps and pipelines' calls."""
    lines = samplers.step_rows(options.repeats)
    for batch_size in (1,) if options.small else (1, 64):
        for steps in (1, 2, 4, 8):
            lines += samplers.pipeline_rows("demo, 8x8", batch_size, steps, options.repeats)
    return lines if options.small else lines + samplers.pipeline_rows("0.3 M, 28x28", 64, 4, options.repeats)


def other_rows(options) -> list[dict]:
    """Everything that is not an update or a sample."""
    count = options.repeats
    return (
        others.startup_rows(count)
        + others.checkpoint_rows(count)
        + others.data_rows(count)
        + others.reading_rows(count, num_images=20 if options.small else 2000)
        + others.evaluation_rows(count, num_images=20 if options.small else 500)
    )


ROWS = {"updates": update_rows, "peers": peer_rows, "sampling": sampling_rows, "others": other_rows}


def main(argv: list[str] | None = None) -> list[dict]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--small", action="store_true", help="the smallest network alone, to try it")
    parser.add_argument("--openai", type=Path)
    parser.add_argument("--hramchenko", type=Path)
    parser.add_argument("--json", type=Path, help="where the figures are written")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    error = max(map(updates.check, ("demo, 8x8",) if options.small else ("demo, 8x8", "1 M, 28x28")))
    if error > TARGET_TOLERANCE:
        raise SystemExit(f"the targets are wrong by {error:.2g}: no times")
    about = f"torch {torch.__version__}, diffusers {diffusers.__version__}, Python {platform.python_version()}"
    print(f"{about}, {options.threads} thread{'s' * (options.threads > 1)}; targets agree with float64 to {error:.1e}")
    lines = []
    for name in options.rows.split(","):
        made = ROWS[name.strip()](options)
        print(table(made), flush=True)
        lines += made
    if options.json is not None:
        content = {"about": about, "threads": options.threads, "target_error": error, "rows": lines}
        options.json.write_text(json.dumps(content, indent=1))
    return lines


if __name__ == "__main__":
    main()
