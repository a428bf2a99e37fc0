import math
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import DDIMScheduler, DDPMScheduler, SchedulerMixin
from diffusers.configuration_utils import ConfigMixin, FrozenDict, register_to_config
from diffusers.utils import BaseOutput, logging
from diffusers.utils.torch_utils import randn_tensor

from ..processes.base import add_noise, get_velocity
from ..processes.betas import NUM_TRAIN_TIMESTEPS, BetaProcess, time_to_timestep
from ..processes.prediction import check_prediction_type, from_sample, to_sample
from ..processes.solvers import DDIMStep
from .configs import check_variance_preserving, defaults_shared_with, in_present_words, resolve_betas


logger = logging.get_logger(__name__)

# Our metadata in a scheduler's config; diffusers keeps underscore keys through load, `from_config` and save.
METADATA_KEY = "_progdistill"

# How far, as a fraction of a step of the grid, a timestep may be from a grid entry and still be that entry.
GRID_TOLERANCE = 1e-3


@dataclass
class ProgressiveDistillationSchedulerOutput(BaseOutput):
    """
    Output class for the scheduler's `step` function output.

    Args:
        prev_sample (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
            Sample at the next, less noisy, entry of the grid; the next model input of the denoising loop.
        pred_original_sample (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
            The clean image predicted from the current sample.
    """

    prev_sample: torch.Tensor
    pred_original_sample: torch.Tensor | None = None


class ProgressiveDistillationScheduler(SchedulerMixin, ConfigMixin):
    """
    Samples progressively distilled models: DDIM on the grid t = i/N, i = N ... 1, that the N-step model was trained
    on (Salimans & Ho, 2022, [arXiv 2202.00512](https://huggingface.co/papers/2202.00512)).

    The default is the paper's cosine schedule with v-prediction. Every schedule of [`DDIMScheduler`] and
    [`DDPMScheduler`] is accepted too, and [`~ConfigMixin.from_config`] keeps the schedule to and from
    [`DDIMScheduler`], [`DDPMScheduler`], [`DPMSolverMultistepScheduler`] and [`UniPCMultistepScheduler`].

    This model inherits from [`SchedulerMixin`] and [`ConfigMixin`]. Check the superclass documentation for the generic
    methods the library implements for all schedulers such as loading and saving.

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
        clip_sample (`bool`, defaults to `False`):
            Clip the predicted clean image in every step, as [`DDIMScheduler`] does.
        set_alpha_to_one (`bool`, defaults to `True`):
            Whether the last step goes to clean data; otherwise to the noise level of timestep 0.
        steps_offset (`int`, defaults to 0):
            Kept for other scheduler classes; this grid has no offset.
        prediction_type (`str`, defaults to `"v_prediction"`):
            `"epsilon"`, `"sample"`, `"v_prediction"` or `"sample_epsilon"` (twice the output channels: the paper's
            merged prediction of x and epsilon).
        thresholding (`bool`, defaults to `False`):
            Dynamic thresholding of the predicted clean image, as [`DDIMScheduler`] does.
        dynamic_thresholding_ratio (`float`, defaults to 0.995):
            The ratio of the dynamic thresholding. Valid only when `thresholding=True`.
        clip_sample_range (`float`, defaults to 1.0):
            The maximum magnitude for sample clipping. Valid only when `clip_sample=True`.
        sample_max_value (`float`, defaults to 1.0):
            The threshold value of the dynamic thresholding. Valid only when `thresholding=True`.
        timestep_spacing (`str`, defaults to `"trailing"`):
            Only `"trailing"`: it makes other scheduler classes use the grid of this one. `from_config` sets it.
        rescale_betas_zero_snr (`bool`, defaults to `False`):
            Whether to rescale the betas to zero terminal SNR. Not with `"epsilon"`, which says nothing about the image
            there.

    Raises:
        `ValueError`: For a prediction type, beta schedule or timestep spacing that is not one of the above.
    """

    _compatibles = ["DDIMScheduler", "DDPMScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"]
    order = 1

    # One implementation of dynamic thresholding for all of diffusers, so ours is that one.
    _threshold_sample = DDIMScheduler._threshold_sample

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
        steps_offset: int = 0,
        prediction_type: str = "v_prediction",
        thresholding: bool = False,
        dynamic_thresholding_ratio: float = 0.995,
        clip_sample_range: float = 1.0,
        sample_max_value: float = 1.0,
        timestep_spacing: str = "trailing",
        rescale_betas_zero_snr: bool = False,
    ):
        check_prediction_type(prediction_type)
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
        self._grid = self._steps = None

    @classmethod
    def from_config(cls, config=None, return_unused_kwargs=False, **kwargs):
        """
        Make this scheduler from the config of any compatible one, with its schedule, whatever keys it left at its own
        defaults. The grid is always this class's own (`timestep_spacing="trailing"`).

        Args:
            config (`dict[str, Any]`): The config of a scheduler.
            return_unused_kwargs (`bool`, *optional*, defaults to `False`): As [`~ConfigMixin.from_config`].
            kwargs (remaining dictionary of keyword arguments, *optional*): Override entries of the config.

        Raises:
            `ValueError`: If the config is of a scheduler without a variance preserving schedule.
        """
        live = isinstance(config, FrozenDict)
        if isinstance(config, dict):
            check_variance_preserving(config)
            config = in_present_words(config)
            config = {**defaults_shared_with(cls, config.get("_class_name")), **config}
            config.update(timestep_spacing="trailing", steps_offset=0, _use_default_values=[])
        made = super().from_config(config, return_unused_kwargs=return_unused_kwargs, **kwargs)
        if live:
            # What is made from a live scheduler carries the empty list; a file has no such key.
            (made[0] if return_unused_kwargs else made).register_to_config(_use_default_values=[])
        return made

    @property
    def num_trained_steps(self) -> int | None:
        """The number of sampling steps N the model was distilled for; `None` for a teacher, which has none."""
        return (self.config.get(METADATA_KEY) or {}).get("num_inference_steps")

    @property
    def has_stochastic_sampler(self) -> bool:
        """Whether the model was distilled for Meng et al.'s sampler with fresh noise, which `step` then is."""
        return bool((self.config.get(METADATA_KEY) or {}).get("stochastic_sampler"))

    def scale_model_input(self, sample: torch.Tensor, timestep: float | torch.Tensor | None = None) -> torch.Tensor:
        """
        Ensures interchangeability with schedulers that need to scale the denoising model input: returns `sample`.

        Args:
            sample (`torch.Tensor`): The input sample.
            timestep (`float` or `torch.Tensor`, *optional*): The current timestep.
        """
        return sample

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: list[float] | None = None,
    ):
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
        self.num_inference_steps = len(grid)
        self._grid = grid
        ends = [self._final_angle] * 2
        self._steps = list(map(self._make_step, angles, [*angles[1:], *ends], [*angles[2:], *ends]))
        # Kept, so that no other tensor comes to lie in the same memory.
        self._grid_memory = self.timesteps = torch.tensor(grid, dtype=torch.float32).to(device)

    def _make_step(self, angle: float, angle_next: float, angle_jump: float) -> DDIMStep:
        """The step to the next angle of the grid; `angle_jump` is the one after it."""
        if self.config.prediction_type == "epsilon" and math.cos(angle) < 1e-12:
            raise ValueError(
                "`prediction_type='epsilon'` cannot start from zero terminal SNR: epsilon says nothing about the image"
                " there. Use a v-prediction model."
            )
        jump = angle_jump if self.has_stochastic_sampler else None
        return DDIMStep.create(angle, angle_next, self.config.prediction_type, jump)

    def _find_step(self, timestep: float | torch.Tensor) -> DDIMStep:
        """The step that starts at `timestep`: of the grid if it is on it, else 1/N in t, at most to clean data."""
        if torch.is_tensor(timestep):
            # An element of `self.timesteps` is known by its place in that tensor's memory: no read from the device.
            place = timestep.data_ptr() - self._grid_memory.data_ptr()
            if 0 <= place < 4 * len(self._steps) and timestep.numel() == 1 and timestep.dtype == torch.float32:
                return self._steps[place // 4]
            timestep = timestep.item()
        num_train = self.config.num_train_timesteps
        distance, index = min((abs(t - timestep), i) for i, t in enumerate(self._grid))
        if distance <= GRID_TOLERANCE * num_train / self.num_inference_steps:
            return self._steps[index]
        ends = [timestep - k * num_train / self.num_inference_steps for k in (1, 2)]
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
    ) -> ProgressiveDistillationSchedulerOutput | tuple:
        """
        One DDIM step to the next entry of the grid; the last one goes to clean data. With a model that was distilled
        for the stochastic sampler (Meng et al., 2022) it is DDIM to the entry after the next, and noise back to the
        next.

        Args:
            model_output (`torch.Tensor`):
                The output of the model, of the scheduler's prediction type.
            timestep (`float` or `torch.Tensor`):
                The current timestep. Off the grid the step is 1/N in t, at most to clean data.
            sample (`torch.Tensor`):
                The current sample z_t.
            eta (`float`, *optional*, defaults to 0.0):
                Weight of fresh noise: 0 is DDIM, 1 ancestral sampling (section 1.6 of the DDIM paper). Must be 0 with
                the stochastic sampler, which has its own.
            use_clipped_model_output (`bool`, *optional*, defaults to `False`):
                Whether epsilon is computed again from the clipped clean image (the paper's sampler). Without clipping
                it changes nothing.
            generator (`torch.Generator` or `list[torch.Generator]`, *optional*):
                For the fresh noise of `eta > 0` and of the stochastic sampler.
            variance_noise (`torch.Tensor`, *optional*):
                The fresh noise itself, in place of a generator.
            return_dict (`bool`, *optional*, defaults to `True`):
                Whether to return a [`ProgressiveDistillationSchedulerOutput`] or a tuple.

        Returns:
            [`ProgressiveDistillationSchedulerOutput`] or `tuple`: `prev_sample` and `pred_original_sample`.

        Raises:
            `ValueError`: If `set_timesteps` was not called, both a generator and `variance_noise` are given, or `eta`
                is with the stochastic sampler.
        """
        if self._steps is None:
            raise ValueError("call `set_timesteps` before `step`")
        if eta and self.has_stochastic_sampler:
            raise ValueError(f"`eta` must be 0, not {eta:g}: this model's sampler has its own noise")
        step = self._find_step(timestep)
        clips = self.config.clip_sample or self.config.thresholding
        if self.config.prediction_type == "sample_epsilon":
            model_output = to_sample(model_output, sample, step.alpha, step.sigma, "sample_epsilon")
        if eta > 0 or clips or step.noise > 0:
            prev, x = self._clipped_or_noisy(
                model_output, step, sample, eta, use_clipped_model_output, generator, variance_noise
            )
        else:
            prev = torch.add(sample * step.prev[0], model_output, alpha=step.prev[1])
            x = model_output if step.x[0] == 0 else torch.add(sample * step.x[0], model_output, alpha=step.x[1])
        if not return_dict:
            return prev, x
        return ProgressiveDistillationSchedulerOutput(prev_sample=prev, pred_original_sample=x)

    def _clipped_or_noisy(self, output, step, sample, eta, use_clipped, generator, variance_noise):
        """The general DDIM step (formulas 12 and 16 of the DDIM paper) with clipping and fresh noise."""
        kind = self.config.prediction_type
        kind = "sample" if kind == "sample_epsilon" else kind
        x = to_sample(output, sample, step.alpha, step.sigma, kind)
        epsilon = output if kind == "epsilon" else from_sample(x, sample, step.alpha, step.sigma, "epsilon")
        if kind == "v_prediction":
            epsilon = step.alpha * output + step.sigma * sample
        if self.config.thresholding:
            x = self._threshold_sample(x)
        elif self.config.clip_sample:
            x = x.clamp(-self.config.clip_sample_range, self.config.clip_sample_range)
        if use_clipped:
            epsilon = from_sample(x, sample, step.alpha, step.sigma, "epsilon")
        # sigma_next^2/sigma^2 (1 - alpha^2/alpha_next^2), written with the sine of the turn so as not to cancel.
        turn = step.sigma * step.alpha_next - step.alpha * step.sigma_next
        sum_turn = step.sigma * step.alpha_next + step.alpha * step.sigma_next
        variance = (step.sigma_next / (step.sigma * step.alpha_next)) ** 2 * turn * sum_turn
        std = step.noise or eta * math.sqrt(max(variance, 0.0))
        direction = math.sqrt(max(step.sigma_next**2 - std**2, 0.0))
        prev = step.alpha_next * x + direction * epsilon
        if std > 0:
            if variance_noise is not None and generator is not None:
                raise ValueError("pass only one of `generator` and `variance_noise`")
            if variance_noise is None:
                variance_noise = randn_tensor(
                    sample.shape, generator=generator, device=sample.device, dtype=sample.dtype
                )
            prev = prev + std * variance_noise
        return prev, x

    def _angles(self, timesteps: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        angles = self.schedule.angles(torch.as_tensor(timesteps, device=like.device)).flatten()
        return angles.view(-1, *[1] * (like.ndim - 1))

    def add_noise(self, original_samples: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """
        The forward process z = alpha x + sigma eps.

        Args:
            original_samples (`torch.Tensor` of shape `(batch_size, ...)`): x, images in [-1, 1].
            noise (`torch.Tensor`): eps, of the same shape.
            timesteps (`torch.Tensor` of shape `(batch_size,)` or `(1,)`): Timesteps in [-1, T - 1], not only integers.
        """
        return add_noise(original_samples, noise, self._angles(timesteps, original_samples)).to(original_samples.dtype)

    def get_velocity(self, sample: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """
        The v that a v-prediction model is trained for: v = alpha eps - sigma x.

        Args:
            sample (`torch.Tensor` of shape `(batch_size, ...)`): x, clean images in [-1, 1].
            noise (`torch.Tensor`): eps, of the same shape.
            timesteps (`torch.Tensor` of shape `(batch_size,)` or `(1,)`): Timesteps in [-1, T - 1], not only integers.
        """
        return get_velocity(sample, noise, self._angles(timesteps, sample)).to(sample.dtype)

    def __len__(self) -> int:
        return self.config.num_train_timesteps
