import math
from typing import Any, Self

import numpy as np
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from diffusers.configuration_utils import register_to_config
from diffusers.schedulers.scheduling_ddim import DDIMSchedulerOutput
from diffusers.utils import logging
from diffusers.utils.torch_utils import randn_tensor

from ..processes.base import add_noise, get_velocity
from ..processes.betas import NUM_TRAIN_TIMESTEPS, BetaProcess, time_to_timestep
from ..processes.prediction import from_sample, merge_sample_epsilon
from ..processes.solvers import DDIMStep, combine
from .configs import resolve_betas, translate_config


logger = logging.get_logger(__name__)

# Our metadata in a scheduler's config; diffusers keeps underscore keys through load, `from_config` and save.
METADATA_KEY = "_progdistill"

# What a network whose steps are DDIM's may predict.
PREDICTION_TYPES = ("epsilon", "sample", "v_prediction", "sample_epsilon")

# How far, as a fraction of a step of the grid, a timestep may be from a grid entry and still be that entry.
GRID_TOLERANCE = 1e-3


class ProgressiveDistillationScheduler(DDIMScheduler):
    """
    Samples progressively distilled models: DDIM on the grid t = i/N, i = N ... 1, that the N-step model was trained
    on (Salimans & Ho, 2022, [arXiv 2202.00512](https://huggingface.co/papers/2202.00512)).

    The default is the paper's cosine schedule with v-prediction. Every schedule of [`DDIMScheduler`] and
    [`DDPMScheduler`] is accepted too, and [`~ConfigMixin.from_config`] keeps the schedule to and from
    [`DDIMScheduler`], [`DDPMScheduler`], [`DPMSolverMultistepScheduler`] and [`UniPCMultistepScheduler`].

    This scheduler inherits from [`DDIMScheduler`]. Check the superclass documentation for what is not said here.

    Args:
        num_train_timesteps (`int`, defaults to 1024):
            T: timestep `T * t - 1` stands for the continuous time t in (0, 1].
        beta_start (`float`, defaults to 0.0001):
            The starting `beta` value of the `"linear"`, `"scaled_linear"` and `"sigmoid"` schedules.
        beta_end (`float`, defaults to 0.02):
            The final `beta` value of the same.
        beta_schedule (`str`, defaults to `"cosine"`):
            `"cosine"`, the paper's schedule (angle linear in t, log-SNR within ±20), or one of diffusers': `"linear"`,
            `"scaled_linear"`, `"squaredcos_cap_v2"`, `"sigmoid"`, `"laplace"`.
        trained_betas (`np.ndarray` or `list[float]`, *optional*):
            An array of betas that is used in place of `beta_schedule`. The config always holds the betas here, so that
            other scheduler classes take over the schedule as it is.
        clip_sample, clip_sample_range, thresholding, dynamic_thresholding_ratio, sample_max_value, set_alpha_to_one:
            As [`DDIMScheduler`], but nothing is clipped by default.
        prediction_type (`str`, defaults to `"v_prediction"`):
            `"epsilon"`, `"sample"`, `"v_prediction"` or `"sample_epsilon"` (twice the output channels: the paper's
            merged prediction of x and epsilon).
        timestep_spacing (`str`, defaults to `"trailing"`):
            Only `"trailing"`: in the config it makes other scheduler classes use the grid of this one, whose own
            default is another. `from_config` sets it.
        rescale_betas_zero_snr (`bool`, defaults to `False`):
            Whether to rescale the betas to zero terminal SNR. Not with `"epsilon"`, which says nothing about the image
            there.

    Raises:
        `ValueError`: For a prediction type, beta schedule or timestep spacing that is not one of the above.
    """

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = NUM_TRAIN_TIMESTEPS,
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: str = "cosine",
        trained_betas: np.ndarray | list[float] | None = None,
        clip_sample: bool = False,
        set_alpha_to_one: bool = True,
        prediction_type: str = "v_prediction",
        thresholding: bool = False,
        dynamic_thresholding_ratio: float = 0.995,
        clip_sample_range: float = 1.0,
        sample_max_value: float = 1.0,
        timestep_spacing: str = "trailing",
        rescale_betas_zero_snr: bool = False,
    ) -> None:
        if prediction_type not in PREDICTION_TYPES:
            known = ", ".join(PREDICTION_TYPES)
            raise ValueError(f"`prediction_type` must be one of {known}, not {prediction_type!r}")
        if timestep_spacing != "trailing":
            raise ValueError(f"`timestep_spacing` must be 'trailing' (the grid t = i/N), not {timestep_spacing!r}")
        trained_betas = resolve_betas(trained_betas, beta_schedule, num_train_timesteps, beta_start, beta_end)
        # diffusers' `from_config` drops what equals a class's defaults, and with it the schedule, so the config holds
        # the betas themselves and no list of defaulted keys.
        self.register_to_config(trained_betas=trained_betas)
        if "_use_default_values" in self.config:
            self.register_to_config(_use_default_values=[])

        self.betas = torch.tensor(trained_betas, dtype=torch.float32)
        if rescale_betas_zero_snr:
            self.betas = DDPMScheduler(trained_betas=trained_betas, rescale_betas_zero_snr=True).betas
            trained_betas = self.betas.double().tolist()
        self.schedule = BetaProcess(trained_betas, num_train_timesteps)
        self.alphas = 1.0 - self.betas
        table = torch.arange(len(trained_betas), dtype=torch.float64)
        self.alphas_cumprod = self.schedule.angles(table).cos().square().float()
        self.final_alpha_cumprod = torch.tensor(1.0) if set_alpha_to_one else self.alphas_cumprod[0]
        self._final_angle = 0.0 if set_alpha_to_one else self.schedule.angle(0.0)

        self.init_noise_sigma = 1.0
        self.num_inference_steps = None
        self.timesteps = torch.arange(num_train_timesteps - 1, -1, -1, dtype=torch.float32)
        self._steps = self._step_index = self._begin_index = None

    @property
    def metadata(self) -> dict:
        """What this package stores beside the schedule: the model's steps, classes and guidance."""
        return self.config.get(METADATA_KEY) or {}

    @classmethod
    def from_config(
        cls, config: dict | None = None, return_unused_kwargs: bool = False, **kwargs: Any
    ) -> Self | tuple[Self, dict]:
        """
        Make this scheduler from the config of any compatible one, with its schedule, whatever keys it left at its own
        defaults. The grid is always this class's own (`timestep_spacing="trailing"`).

        Args:
            config, return_unused_kwargs, kwargs: As [`~ConfigMixin.from_config`].

        Raises:
            `ValueError`: If the config is of a scheduler without a variance preserving schedule.
        """
        if isinstance(config, dict):
            config = {**translate_config(config, cls), "timestep_spacing": "trailing", "_use_default_values": []}
            # Of grids with another spacing alone.
            config.pop("steps_offset", None)
        return super().from_config(config, return_unused_kwargs=return_unused_kwargs, **kwargs)

    @property
    def num_trained_steps(self) -> int | None:
        """The number of sampling steps N the model was distilled for; `None` for a teacher, which has none."""
        return self.metadata.get("num_inference_steps")

    @property
    def has_stochastic_sampler(self) -> bool:
        """Whether the model was distilled for Meng et al.'s sampler with fresh noise, which `step` then is."""
        return bool(self.metadata.get("stochastic_sampler"))

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: list[float] | None = None,
    ) -> None:
        """
        Sets the grid used for sampling (to be run before inference).

        Args:
            num_inference_steps (`int`, *optional*):
                N: the grid is t = i/N, i = N ... 1, in timesteps `T * t - 1`. Any positive number; a warning is given
                when the model was trained for another one.
            device (`str` or `torch.device`, *optional*):
                Where `self.timesteps` is put.
            timesteps (`list[float]`, *optional*):
                A grid of one's own in place of `num_inference_steps`: descending timesteps in (-1, T - 1].

        Raises:
            `ValueError`: If not exactly one of `num_inference_steps` and `timesteps` is given, or it is out of range.
        """
        if (num_inference_steps is None) == (timesteps is None):
            raise ValueError("pass exactly one of `num_inference_steps` and `timesteps`")
        num_train = self.config.num_train_timesteps
        if timesteps is None:
            if int(num_inference_steps) != num_inference_steps or num_inference_steps < 1:
                raise ValueError(f"`num_inference_steps` must be a positive integer, not {num_inference_steps}")
            count = int(num_inference_steps)
            grid = [time_to_timestep(i / count, num_train) for i in range(count, 0, -1)]
        else:
            grid = [float(t) for t in timesteps]
            if not grid or grid[0] > num_train - 1 or grid[-1] <= -1 or any(a <= b for a, b in zip(grid, grid[1:])):
                raise ValueError(f"`timesteps` must be descending timesteps in (-1, {num_train - 1}]")
        trained = self.num_trained_steps
        if trained is not None and len(grid) != trained:
            logger.warning(
                f"This model was distilled for {trained} sampling steps and is asked for {len(grid)}: expect poor"
                f" images. Pass `num_inference_steps={trained}`."
            )
        angles = [self.schedule.angle(t) for t in grid]
        ends = [self._final_angle] * 2
        self._steps = list(map(self._make_step, angles, [*angles[1:], *ends], [*angles[2:], *ends]))
        self.num_inference_steps = len(grid)
        self.timesteps = torch.tensor(grid, dtype=torch.float32).to(device)
        self._grid, self._entries = np.array(grid), self.timesteps.unbind()
        self._step_index = self._begin_index = None

    def _make_step(self, angle: float, angle_next: float, angle_jump: float) -> DDIMStep:
        """The step to the next angle of the grid; `angle_jump` is the one after it."""
        if self.config.prediction_type == "epsilon" and math.cos(angle) < 1e-12:
            raise ValueError(
                "`prediction_type='epsilon'` cannot start from zero terminal SNR: epsilon says nothing about the image"
                " there. Use a v-prediction model."
            )
        jump = angle_jump if self.has_stochastic_sampler else None
        return DDIMStep.create(angle, angle_next, self.config.prediction_type, jump)

    @property
    def step_index(self) -> int | None:
        """The index of the next step of a run over the grid; `None` before its first one."""
        return self._step_index

    @property
    def begin_index(self) -> int | None:
        """The index of a run's first step, if [`set_begin_index`] was told it."""
        return self._begin_index

    def set_begin_index(self, begin_index: int = 0) -> None:
        """
        Let a run begin at this index of the grid, for example for image-to-image. Steps are counted up from there,
        whatever timesteps they are called with.
        """
        self._begin_index, self._step_index = begin_index, None

    def index_for_timestep(self, timestep: float | torch.Tensor) -> int | None:
        """The index of a timestep in the grid, `None` if it is not there. The host waits for one on a device."""
        distances = np.abs(self._grid - float(timestep))
        index = int(distances.argmin())
        tolerance = GRID_TOLERANCE * self.config.num_train_timesteps / self.num_inference_steps
        return index if distances[index] <= tolerance else None

    def _find_step(self, timestep: float | torch.Tensor) -> DDIMStep:
        """
        The step that starts at `timestep`, which counts as taken. A run in the order of the grid is counted up, so
        that nothing is read from a device: where one begins was set, or the very entry of the grid comes that is due.
        """
        index = self._step_index or self._begin_index or 0
        if self._begin_index is None and not (torch.is_tensor(timestep) and timestep.is_set_to(self._entries[index])):
            timestep = float(timestep)
            index = self.index_for_timestep(timestep)
            if index is None:
                return self._leave_grid(timestep)
        # After the last step comes the first one of the next run.
        self._step_index = (index + 1) % len(self._steps)
        return self._steps[index]

    def _leave_grid(self, timestep: float) -> DDIMStep:
        """The step from a timestep that is not on the grid: 1/N in t, at most to clean data."""
        ends = [timestep - k * self.config.num_train_timesteps / self.num_inference_steps for k in (1, 2)]
        # Timestep -1 is t = 0; a grid's own last step ends where the options say, and so does this one.
        angles = [self.schedule.angle(end) if end > -1 + 1e-9 else self._final_angle for end in ends]
        return self._make_step(self.schedule.angle(timestep), *angles)

    def step(
        self,
        model_output: torch.Tensor,
        timestep: float | torch.Tensor,
        sample: torch.Tensor,
        eta: float = 0.0,
        use_clipped_model_output: bool | None = False,
        generator: torch.Generator | list[torch.Generator] | None = None,
        variance_noise: torch.Tensor | None = None,
        return_dict: bool = True,
    ) -> DDIMSchedulerOutput | tuple:
        """
        One DDIM step to the next entry of the grid; the last one goes to clean data. With a model that was distilled
        for the stochastic sampler (Meng et al., 2022) it is DDIM to the entry after the next, and noise back to the
        next.

        Args:
            model_output, sample, use_clipped_model_output, generator, variance_noise, return_dict:
                As [`DDIMScheduler.step`]; fresh noise is that of `eta > 0` and of the stochastic sampler.
            timestep (`float` or `torch.Tensor`):
                The current timestep. Off the grid the step is 1/N in t, at most to clean data.
            eta (`float`, *optional*, defaults to 0.0):
                Weight of fresh noise: 0 is DDIM, 1 ancestral sampling (section 1.6 of the DDIM paper). Must be 0 with
                the stochastic sampler, which has its own.

        Returns:
            [`~schedulers.scheduling_ddim.DDIMSchedulerOutput`] or `tuple`: `prev_sample` and `pred_original_sample`.

        Raises:
            `ValueError`: If `set_timesteps` was not called, both a generator and `variance_noise` are given, or `eta`
                is with the stochastic sampler.
        """
        if self._steps is None:
            raise ValueError("call `set_timesteps` before `step`")
        if eta and self.has_stochastic_sampler:
            raise ValueError(f"`eta` must be 0, not {eta:g}: this model's sampler has its own noise")
        step = self._find_step(timestep)
        if self.config.prediction_type == "sample_epsilon":
            model_output = merge_sample_epsilon(model_output, sample, step.alpha, step.sigma)
        x = combine(step.x, sample, model_output)
        clips = self.config.clip_sample or self.config.thresholding
        if eta > 0 or clips or step.noise > 0:
            epsilon = combine(step.epsilon, sample, model_output)
            if self.config.thresholding:
                x = self._threshold_sample(x)
            elif clips:
                x = x.clamp(-self.config.clip_sample_range, self.config.clip_sample_range)
            if use_clipped_model_output:
                epsilon = from_sample(x, sample, step.alpha, step.sigma, "epsilon")
            std = step.noise_std(eta)
            prev = step.recombine(x, epsilon, std)
            if std > 0:
                if variance_noise is None:
                    like = {"device": sample.device, "dtype": sample.dtype}
                    variance_noise = randn_tensor(sample.shape, generator=generator, **like)
                elif generator is not None:
                    raise ValueError("pass only one of `generator` and `variance_noise`")
                prev = prev + std * variance_noise
        else:
            prev = combine(step.prev, sample, model_output)
        if not return_dict:
            return prev, x
        return DDIMSchedulerOutput(prev_sample=prev, pred_original_sample=x)

    def _angles(self, timesteps: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        angles = self.schedule.angles(torch.as_tensor(timesteps, device=like.device)).flatten()
        return angles.view(-1, *[1] * (like.ndim - 1))

    def add_noise(self, original_samples: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """The forward process z = alpha x + sigma eps at timesteps in [-1, T - 1], not only integers."""
        return add_noise(original_samples, noise, self._angles(timesteps, original_samples)).to(original_samples.dtype)

    def get_velocity(self, sample: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """What a v-prediction model is trained for, v = alpha eps - sigma x, at timesteps as in [`add_noise`]."""
        return get_velocity(sample, noise, self._angles(timesteps, sample)).to(sample.dtype)
