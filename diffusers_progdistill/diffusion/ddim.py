"""The deterministic DDIM step in closed form, for each prediction type."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class DDIMStep:
    """
    One step of a grid from angle phi to angle phi_next: Python floats, so that a loop moves nothing to a device.

    Unclipped and without fresh noise a DDIM step is linear in the sample z and the model output m (the merged x for
    `sample_epsilon`): `prev_sample = prev[0] z + prev[1] m` and `pred_original_sample = x[0] z + x[1] m`.
    """

    alpha: float
    sigma: float
    alpha_next: float
    sigma_next: float
    prev: tuple[float, float]
    x: tuple[float, float]

    @classmethod
    def create(cls, angle: float, angle_next: float, prediction_type: str) -> "DDIMStep":
        """The step between two angles in radians, for one prediction type (`sample_epsilon` as its merged x)."""
        alpha, sigma = math.cos(angle), math.sin(angle)
        alpha_next, sigma_next = math.cos(angle_next), math.sin(angle_next)
        turn_cos, turn_sin = math.cos(angle - angle_next), math.sin(angle - angle_next)
        if prediction_type == "v_prediction":
            prev, x = (turn_cos, -turn_sin), (alpha, -sigma)
        elif prediction_type == "epsilon":
            prev, x = (alpha_next / alpha, -turn_sin / alpha), (1 / alpha, -sigma / alpha)
        else:
            prev, x = (sigma_next / sigma, turn_sin / sigma), (0.0, 1.0)
        return cls(alpha, sigma, alpha_next, sigma_next, prev, x)
