"""Noise processes of every kind, and what their own papers call a step: the oracle of the package's rotations."""

import math

import torch
from diffusers import DDIMScheduler

from diffusers_progdistill.processes.base import NoiseProcess
from diffusers_progdistill.processes.betas import BetaProcess, canonical_betas
from diffusers_progdistill.processes.exploding import EDMProcess, VarianceExplodingProcess
from diffusers_progdistill.processes.flow import FlowProcess


def make_beta_process(**options) -> BetaProcess:
    """A table of stock diffusers, in float64 as a config holds it."""
    return BetaProcess(DDIMScheduler(**options).betas.double().tolist(), 1000)


PROCESSES: dict[str, NoiseProcess] = {
    "canonical": BetaProcess(canonical_betas(), 1024),
    "linear": make_beta_process(),
    "stable_diffusion": make_beta_process(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
    "zero_snr": make_beta_process(beta_schedule="scaled_linear", rescale_betas_zero_snr=True),
    "flow": FlowProcess(),
    "shifted_flow": FlowProcess(shift=3.0),
    "edm": EDMProcess(0.002, 80.0, 0.5),
    "edm_of_unit_data": EDMProcess(0.01, 120.0, 1.0, rho=3.0),
    "exploding": VarianceExplodingProcess(0.01, 1348.0),
}

PREDICTION_TYPES = ("epsilon", "sample", "v_prediction", "sample_epsilon", "flow", "edm")

# epsilon says nothing of x where there is no signal.
CASES = [
    (name, kind)
    for name in PROCESSES
    for kind in PREDICTION_TYPES
    if kind != "epsilon" or name not in ("zero_snr", "flow", "shifted_flow")
]


def list_levels(process: NoiseProcess, num_steps: int) -> list[tuple[float, float]]:
    """Angles and times of an N-step grid from noise to data, which has the angle 0 and no time."""
    return [*(process.level(i / num_steps) for i in range(num_steps, 0, -1)), (0.0, None)]


def find_native_time(process: NoiseProcess, angle: float, time: float | None) -> float:
    """t of a flow and s of what explodes, from what the network is told; tan(phi) of what preserves the variance."""
    if isinstance(process, BetaProcess):
        return math.tan(angle)
    if time is None:
        return 0.0
    if isinstance(process, FlowProcess):
        return time / 1000
    return time if isinstance(process, VarianceExplodingProcess) else math.exp(4 * time)


def to_native(process: NoiseProcess, z: torch.Tensor, native: float) -> torch.Tensor:
    """The sample that the process's own literature steps."""
    if isinstance(process, FlowProcess):
        return z * (native**2 + (1 - native) ** 2) ** 0.5
    if isinstance(process, EDMProcess):
        return z * (native**2 + process.unit**2) ** 0.5
    if isinstance(process, VarianceExplodingProcess):
        return (z * (1 + 4 * native**2) ** 0.5 + 1) / 2
    return z


def from_native(process: NoiseProcess, sample: torch.Tensor, native: float) -> torch.Tensor:
    """The variance preserving sample."""
    if isinstance(process, FlowProcess):
        return sample / (native**2 + (1 - native) ** 2) ** 0.5
    if isinstance(process, EDMProcess):
        return sample / (native**2 + process.unit**2) ** 0.5
    if isinstance(process, VarianceExplodingProcess):
        return (2 * sample - 1) / (1 + 4 * native**2) ** 0.5
    return sample


def step_natively(process: NoiseProcess, z: torch.Tensor, x: torch.Tensor, start: tuple, end: tuple) -> torch.Tensor:
    """
    A step between two levels with the estimate x of the data, as the process's own literature makes it: DDIM, or an
    Euler step in t or s. It takes and gives variance preserving samples.
    """
    (angle, time), (angle_end, time_end) = start, end
    if isinstance(process, BetaProcess):
        angle, angle_end = (torch.tensor(a, dtype=torch.float64) for a in (angle, angle_end))
        noise = (z - angle.cos() * x) / angle.sin()
        return angle_end.cos() * x + angle_end.sin() * noise
    native, native_end = find_native_time(process, angle, time), find_native_time(process, angle_end, time_end)
    sample = to_native(process, z, native)
    if isinstance(process, FlowProcess):
        slope = (sample - x) / native
    elif isinstance(process, EDMProcess):
        slope = (sample - process.unit * x) / native
    else:
        slope = (sample - (x + 1) / 2) / native
    return from_native(process, sample + (native_end - native) * slope, native_end)


def find_error(value: torch.Tensor, exact: torch.Tensor) -> float:
    """The largest difference, relative to the largest number."""
    return ((value - exact).abs().max() / exact.abs().max().clamp_min(1.0)).item()


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    """Fixed float64 noise."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
