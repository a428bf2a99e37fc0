"""The DDIM step in closed form, for each prediction type."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class DDIMStep:
    """
    One step of a grid from angle phi to angle phi_next: Python floats, so that a loop moves nothing to a device.

    Unclipped and without fresh noise a DDIM step is linear in the sample z and the model output m (the merged x for
    `sample_epsilon`): `prev_sample = prev[0] z + prev[1] m` and `pred_original_sample = x[0] z + x[1] m`.

    `noise` is the standard deviation of the fresh noise of a step of Meng et al.'s (2022) stochastic sampler, which
    jumps beyond phi_next and noises back to it; 0 for plain DDIM.
    """

    alpha: float
    sigma: float
    alpha_next: float
    sigma_next: float
    prev: tuple[float, float]
    x: tuple[float, float]
    noise: float = 0.0

    @classmethod
    def create(
        cls, angle: float, angle_next: float, prediction_type: str, angle_jump: float | None = None
    ) -> "DDIMStep":
        """
        The step between two angles in radians, for one prediction type (`sample_epsilon` as its merged x).

        With `angle_jump`, at most `angle_next`, it is the stochastic one: DDIM to there, and noise back.
        """
        alpha, sigma = math.cos(angle), math.sin(angle)
        alpha_next, sigma_next = math.cos(angle_next), math.sin(angle_next)
        turn_cos, turn_sin = math.cos(angle - angle_next), math.sin(angle - angle_next)
        if prediction_type == "v_prediction":
            prev, x = (turn_cos, -turn_sin), (alpha, -sigma)
        elif prediction_type == "epsilon":
            prev, x = (alpha_next / alpha, -turn_sin / alpha), (1 / alpha, -sigma / alpha)
        elif prediction_type == "flow":
            both = alpha + sigma
            prev, x = ((alpha_next + sigma_next) / both, -turn_sin / both), (1 / both, -sigma / both)
        elif prediction_type == "edm":
            prev, x = (turn_cos, turn_sin), (alpha, sigma)
        else:
            prev, x = (sigma_next / sigma, turn_sin / sigma), (0.0, 1.0)
        noise = 0.0
        if angle_jump is not None:
            # sigma_next^2 - (alpha_next/alpha_jump)^2 sigma_jump^2: what the jump's own noise leaves to be added.
            variance = math.sin(angle_next - angle_jump) * math.sin(angle_next + angle_jump)
            noise = math.sqrt(variance) / math.cos(angle_jump)
        return cls(alpha, sigma, alpha_next, sigma_next, prev, x, noise)
