"""The DDIM step in closed form: of a scheduler's grid, for each prediction type, and of a batch."""

import math
from dataclasses import dataclass

import torch


# The weights of z and m in what is the model output itself.
OUTPUT = (0.0, 1.0)


@dataclass(frozen=True)
class DDIMStep:
    """
    One step of a grid from angle phi to angle phi_next: Python floats, so that a loop moves nothing to a device.

    Unclipped and without fresh noise a DDIM step is linear in the sample z and the model output m (the merged x for
    `sample_epsilon`): `prev_sample = prev[0] z + prev[1] m`, `pred_original_sample = x[0] z + x[1] m`, and the noise
    in z is `epsilon[0] z + epsilon[1] m`. See [`combine`].

    `noise` is the standard deviation of the fresh noise of a step of Meng et al.'s (2022) stochastic sampler, which
    jumps beyond phi_next and noises back to it; 0 for plain DDIM.
    """

    alpha: float
    sigma: float
    alpha_next: float
    sigma_next: float
    prev: tuple[float, float]
    x: tuple[float, float]
    epsilon: tuple[float, float]
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
            prev, x, epsilon = (turn_cos, -turn_sin), (alpha, -sigma), (sigma, alpha)
        elif prediction_type == "epsilon":
            prev, x, epsilon = (alpha_next / alpha, -turn_sin / alpha), (1 / alpha, -sigma / alpha), OUTPUT
        elif prediction_type == "flow":
            both = alpha + sigma
            prev, x = ((alpha_next + sigma_next) / both, -turn_sin / both), (1 / both, -sigma / both)
            epsilon = (1 / both, alpha / both)
        elif prediction_type == "edm":
            prev, x, epsilon = (turn_cos, turn_sin), (alpha, sigma), (sigma, -alpha)
        else:
            prev, x, epsilon = (sigma_next / sigma, turn_sin / sigma), OUTPUT, (1 / sigma, -alpha / sigma)
        noise = 0.0
        if angle_jump is not None:
            # sigma_next^2 - (alpha_next/alpha_jump)^2 sigma_jump^2: what the jump's own noise leaves to be added.
            variance = math.sin(angle_next - angle_jump) * math.sin(angle_next + angle_jump)
            noise = math.sqrt(variance) / math.cos(angle_jump)
        return cls(alpha, sigma, alpha_next, sigma_next, prev, x, epsilon, noise)

    def noise_std(self, eta: float) -> float:
        """The standard deviation of the fresh noise: the step's own, or `eta` times that of ancestral sampling."""
        # sigma_next^2/sigma^2 (1 - alpha^2/alpha_next^2), written with the sine of the turn so as not to cancel.
        turn = self.sigma * self.alpha_next - self.alpha * self.sigma_next
        sum_turn = self.sigma * self.alpha_next + self.alpha * self.sigma_next
        variance = (self.sigma_next / (self.sigma * self.alpha_next)) ** 2 * turn * sum_turn
        return self.noise or eta * math.sqrt(max(variance, 0.0))

    def recombine(self, x: torch.Tensor, epsilon: torch.Tensor, std: float = 0.0) -> torch.Tensor:
        """The sample at phi_next of this x and epsilon, but for fresh noise of `std` (formula 12 of DDIM's paper)."""
        return self.alpha_next * x + math.sqrt(max(self.sigma_next**2 - std**2, 0.0)) * epsilon


def combine(weights: tuple[float, float], z: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    """The sample and the model output, each with its weight; see [`DDIMStep`]."""
    return output if weights == OUTPUT else torch.add(z * weights[0], output, alpha=weights[1])


def take_step(z: torch.Tensor, x: torch.Tensor, angle: torch.Tensor, angle_next: torch.Tensor) -> torch.Tensor:
    """
    DDIM of a batch, and the Euler step of any process: z turned from phi to phi_next, keeping x and the noise in z,
    (sin phi_next / sin phi) z + (sin(phi - phi_next) / sin phi) x. At phi_next = 0 it lands on x.

    Args:
        z, x (`torch.Tensor` of shape `(batch_size, ...)`): Samples, and the data that they mean.
        angle, angle_next (`torch.Tensor`): phi and phi_next, to be broadcast against z.
    """
    sigma = torch.sin(angle)
    return (torch.sin(angle_next) / sigma) * z + (torch.sin(angle - angle_next) / sigma) * x
