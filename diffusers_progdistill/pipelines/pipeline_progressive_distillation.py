import os
from collections.abc import Callable
from pathlib import Path

import diffusers
import numpy as np
import PIL.Image
import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput, SchedulerMixin, UNet2DModel
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils import replace_example_docstring
from diffusers.utils.torch_utils import randn_tensor
from huggingface_hub import create_repo

from ..denoisers.base import Denoiser
from ..schedulers import ProgressiveDistillationScheduler
from ..schedulers.scheduling_progressive_distillation import METADATA_KEY
from . import arguments
from .arguments import Generators, Labels
from .export import save_pipeline


EXAMPLE_DOC_STRING = """
    Examples:

    ```py
    >>> from diffusers_progdistill import ProgressiveDistillationPipeline

    >>> pipe = ProgressiveDistillationPipeline.from_pretrained("demo-digits/steps-4")
    >>> image = pipe().images[0]  # 4 steps: the number that the model was distilled for
    >>> image.save("digit.png")
    ```
"""


class ProgressiveDistillationPipeline(DiffusionPipeline):
    r"""
    Pipeline for unconditional and class-conditional image generation with progressively distilled models (Salimans &
    Ho, 2022, [arXiv 2202.00512](https://huggingface.co/papers/2202.00512)).

    This model inherits from [`DiffusionPipeline`]. Check the superclass documentation for the generic methods
    implemented for all pipelines (downloading, saving, running on a particular device, etc.). Folders are stored as
    stock diffusers wherever that can sample them (see [`save_pipeline`]).

    Parameters:
        unet ([`UNet2DModel`]):
            The model that denoises the images.
        scheduler ([`SchedulerMixin`]):
            A [`ProgressiveDistillationScheduler`], or a scheduler with a variance preserving schedule, such as
            [`DDIMScheduler`] or [`DDPMScheduler`], which is replaced by one with the same schedule.
    """

    model_cpu_offload_seq = "unet"
    _callback_tensor_inputs = ["latents"]

    def __init__(self, unet: UNet2DModel, scheduler: SchedulerMixin) -> None:
        super().__init__()
        if not isinstance(scheduler, ProgressiveDistillationScheduler):
            scheduler = ProgressiveDistillationScheduler.from_config(scheduler.config)
        self.register_modules(unet=unet, scheduler=scheduler)

    @property
    def num_timesteps(self) -> int:
        """The number of steps of the last call."""
        return self._num_timesteps

    @property
    def num_trained_steps(self) -> int | None:
        """The number of sampling steps the model was distilled for; `None` for a teacher."""
        return self._metadata.get("num_inference_steps")

    @property
    def is_conditional(self) -> bool:
        """Whether the model needs `class_labels`."""
        return self.denoiser.has_classes

    @property
    def num_classes(self) -> int | None:
        """The number of classes that can be asked for, the null class not among them; `None` without classes."""
        return self._metadata.get("num_classes", self.unet.config.get("num_class_embeds"))

    @property
    def known_labels(self) -> list[int] | None:
        """The labels that the model was trained with, all `num_classes` or some of them; `None` without classes."""
        if not self.is_conditional or (self.num_classes is None and "known_labels" not in self._metadata):
            return None
        return list(self._metadata.get("known_labels") or range(self.num_classes))

    @property
    def null_label(self) -> int | None:
        """The label that stands for no class, if the model was trained with one."""
        return self._metadata.get("null_label")

    @property
    def guidance_scale(self) -> float | None:
        """The scale of the classifier-free guidance that is folded into the model, if any is."""
        return self._metadata.get("guidance_scale")

    @property
    def id2label(self) -> dict[int, str]:
        """The names of the classes by label, as far as the model knows them."""
        names = enumerate(self._metadata.get("class_names", []))
        known = None if self.known_labels is None else set(self.known_labels)
        return {label: name for label, name in names if known is None or label in known}

    @property
    def _metadata(self) -> dict:
        return self.scheduler.config.get(METADATA_KEY) or {}

    def get_label_ids(self, label: str | list[str]) -> list[int]:
        """
        Map class names to labels, as in [`DiTPipeline`]; whole numbers in the text of a name count as labels.

        Args:
            label (`str` or `list[str]`): Names of classes.

        Raises:
            `ValueError`: For a name that is neither.
        """
        ids = {name: number for number, name in self.id2label.items()}
        names = [label] if isinstance(label, str) else list(label)
        for name in names:
            if isinstance(name, str) and name not in ids and not name.isdecimal():
                known = f"one of {', '.join(ids)}" if ids else "a number: this model knows no names"
                raise ValueError(f"{name!r} is not a class; it must be {known}")
        # A number beside names is a label, not a class of that name.
        return [(ids[n] if n in ids else int(n)) if isinstance(n, str) else n for n in names]

    def check_inputs(
        self,
        batch_size: int,
        class_labels: Labels | None,
        num_inference_steps: int | None,
        generator: Generators,
        latents: torch.Tensor | None,
        guidance_scale: float = 1.0,
    ) -> None:
        """Raise `ValueError` for arguments of `__call__` that do not fit the model or each other."""
        arguments.check_count("batch_size", batch_size)
        if num_inference_steps is not None:
            arguments.check_count("num_inference_steps", num_inference_steps)
        elif self.num_trained_steps is None:
            raise ValueError("this model was not distilled to a number of steps: pass `num_inference_steps`")
        arguments.check_generator(generator, batch_size)
        arguments.check_latents(latents, self.latents_shape(batch_size))
        if self.is_conditional and class_labels is None:
            raise ValueError("this model is class-conditional: pass `class_labels`")
        if class_labels is not None and not self.is_conditional:
            raise ValueError("`class_labels` were passed, but this model has no classes")
        arguments.check_scale(guidance_scale, self.guidance_scale, self.null_label is not None)

    def latents_shape(self, batch_size: int) -> tuple[int, int, int, int]:
        """Shape of the noise that sampling starts from."""
        size = self.unet.config.sample_size
        sides = list(size) if isinstance(size, (list, tuple)) else [size, size]
        if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
            raise ValueError(
                f"the UNet's config must say how large its images are: set its `sample_size`, {size!r}, to a positive"
                " integer, or two of them"
            )
        return (batch_size, self.unet.config.in_channels, *sides)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the images."""
        return self.latents_shape(1)[1:]

    def prepare_latents(
        self,
        batch_size: int,
        dtype: torch.dtype,
        device: torch.device,
        generator: Generators,
        latents: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Pure noise of the shape of the images, or the caller's, drawn as [`DDIMPipeline`] draws it."""
        if latents is None:
            latents = randn_tensor(self.latents_shape(batch_size), generator=generator, device=device, dtype=dtype)
        return latents.to(device, dtype) * self.scheduler.init_noise_sigma

    def prepare_class_labels(
        self, class_labels: Labels | None, batch_size: int, device: torch.device
    ) -> torch.Tensor | None:
        """One label an image as a tensor: one stands for all, a list or tensor must have `batch_size` entries."""
        if class_labels is None:
            return None
        given = class_labels.tolist() if isinstance(class_labels, np.ndarray) else class_labels
        if isinstance(given, str) or isinstance(given, (list, tuple)) and any(isinstance(one, str) for one in given):
            given = self.get_label_ids(given)
        labels = arguments.as_labels(given)
        labels = labels.expand(batch_size) if labels.numel() == 1 else labels
        if labels.numel() != batch_size:
            raise ValueError(f"{labels.numel()} `class_labels` were passed for `batch_size={batch_size}`")
        known = self.known_labels
        if known is not None:
            allowed = known if self.null_label is None else [*known, self.null_label]
            if not bool(torch.isin(labels, torch.tensor(allowed, device=labels.device)).all()):
                span = f"in [0, {len(known) - 1}]" if known == list(range(len(known))) else f"among {known[:20]}"
                raise ValueError(f"`class_labels` must be {span}, as the model was trained with")
        return labels.to(device)

    @torch.no_grad()
    @replace_example_docstring(EXAMPLE_DOC_STRING)
    def __call__(
        self,
        batch_size: int = 1,
        class_labels: Labels | None = None,
        num_inference_steps: int | None = None,
        generator: Generators = None,
        eta: float = 0.0,
        use_clipped_model_output: bool | None = None,
        latents: torch.Tensor | None = None,
        output_type: str | None = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[["ProgressiveDistillationPipeline", int, torch.Tensor, dict], dict | None]
        | PipelineCallback
        | MultiPipelineCallbacks
        | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],
        guidance_scale: float = 1.0,
    ) -> ImagePipelineOutput | tuple:
        r"""
        The call function to the pipeline for generation.

        Args:
            batch_size (`int`, *optional*, defaults to 1):
                The number of images to generate.
            class_labels (`int`, `str`, a list of them, `np.ndarray` or `torch.Tensor`, *optional*):
                The class of all images or of each, by label or by name. Needed by, and only allowed for,
                class-conditional models.
            num_inference_steps (`int`, *optional*):
                The number of denoising steps. Defaults to the number the model was distilled for; a teacher has none
                of its own, so it must be given there.
            generator (`torch.Generator` or `list[torch.Generator]`, *optional*):
                One generator, or one an image, to make generation deterministic.
            eta (`float`, *optional*, defaults to 0.0):
                0 is DDIM, 1 is ancestral sampling. Students are made for 0, those with a stochastic sampler of their
                own too.
            use_clipped_model_output (`bool`, *optional*):
                See [`ProgressiveDistillationScheduler.step`].
            latents (`torch.Tensor` of shape `(batch_size, channels, height, width)`, *optional*):
                The noise to start from, in place of a generator.
            output_type (`str`, *optional*, defaults to `"pil"`):
                `"pil"`, `"np"` (`(batch_size, height, width, channels)` in [0, 1]), `"pt"` (`(batch_size, channels,
                height, width)` in [0, 1]) or `"latent"` (the last sample, in about [-1, 1], not clamped).
            return_dict (`bool`, *optional*, defaults to `True`):
                Whether to return an [`~pipelines.ImagePipelineOutput`] instead of a plain tuple.
            callback_on_step_end (`Callable`, *optional*):
                Called as `callback(pipe, step_index, timestep, callback_kwargs)` after each step; it returns a
                dictionary in which `latents` may be replaced, or nothing. Also a [`~callbacks.PipelineCallback`] or
                several.
            callback_on_step_end_tensor_inputs (`list[str]`, *optional*, defaults to `["latents"]`):
                What the callback is given.
            guidance_scale (`float`, *optional*, defaults to 1.0):
                Scale g of classifier-free guidance, x = g x_cond - (g - 1) x_uncond, with two network evaluations a
                step. For teachers that were trained with a null class; students have it folded in.

        Examples:

        Returns:
            [`~pipelines.ImagePipelineOutput`] or `tuple`: The generated images.

        Raises:
            `ValueError`: If the arguments do not fit the model or each other.
        """
        if isinstance(callback_on_step_end, (PipelineCallback, MultiPipelineCallbacks)):
            callback_on_step_end_tensor_inputs = callback_on_step_end.tensor_inputs
        arguments.check_outputs(output_type, callback_on_step_end_tensor_inputs, self._callback_tensor_inputs)
        self.check_inputs(batch_size, class_labels, num_inference_steps, generator, latents, guidance_scale)
        device, scheduler = self._execution_device, self.scheduler
        labels = self.prepare_class_labels(class_labels, batch_size, device)
        generator = list(generator) if isinstance(generator, tuple) else generator
        clipped = {"use_clipped_model_output": use_clipped_model_output}
        options = arguments.select_step_options(scheduler, eta=eta, generator=generator, **clipped)
        scheduler.set_timesteps(num_inference_steps or self.num_trained_steps, device=device)
        latents = self.prepare_latents(batch_size, self.unet.dtype, device, generator, latents)
        self._num_timesteps = len(scheduler.timesteps)

        for index, timestep in enumerate(self.progress_bar(scheduler.timesteps)):
            model_input = scheduler.scale_model_input(latents, timestep)
            model_output = self.predict(model_input, timestep, labels, guidance_scale)
            latents = scheduler.step(model_output, timestep, latents, **options, return_dict=False)[0]
            if callback_on_step_end is not None:
                given = dict.fromkeys(callback_on_step_end_tensor_inputs or (), latents)
                latents = arguments.replace_latents(callback_on_step_end(self, index, timestep, given), latents)

        images = self.decode(latents, output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    @property
    def denoiser(self) -> Denoiser:
        """The network and what its inputs and outputs mean."""
        null, config = self.null_label, self.unet.config
        labels = None if null is None else {"class_labels": torch.tensor([null], device=self.unet.device)}
        return Denoiser(
            self.unet,
            getattr(self.scheduler, "schedule", None),
            self.scheduler.config.get("prediction_type"),
            has_classes=config.num_class_embeds is not None or config.class_embed_type is not None,
            null_conditioning=labels,
        )

    def predict(
        self, latents: torch.Tensor, timestep: torch.Tensor, labels: torch.Tensor | None, guidance_scale: float
    ) -> torch.Tensor:
        """The network's output, guided in one doubled batch where a scale other than 1 asks for it."""
        denoiser, conditioning = self.denoiser, {} if labels is None else {"class_labels": labels}
        time = torch.as_tensor(timestep, device=latents.device).expand(len(latents))
        if guidance_scale == 1:
            return denoiser.call_network(self.unet, latents, time, conditioning)
        conditional, unconditional = denoiser.call_with_and_without(latents, time, conditioning)
        # For one z every prediction type is an affine function of x, so that this is Meng et al.'s x exactly.
        return torch.lerp(unconditional, conditional, guidance_scale)

    def decode(self, latents: torch.Tensor, output_type: str) -> list[PIL.Image.Image] | np.ndarray | torch.Tensor:
        """The finished images of the asked type from samples in [-1, 1]: the only place where anything is clamped."""
        return VaeImageProcessor().postprocess(latents, output_type)

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        safe_serialization: bool = True,
        variant: str | None = None,
        max_shard_size: int | str | None = None,
        push_to_hub: bool = False,
        **kwargs,
    ) -> None:
        """
        Save the pipeline in the stored form of [`save_pipeline`], which stock diffusers loads.

        Args:
            save_directory, safe_serialization, variant, max_shard_size, push_to_hub:
                As [`~DiffusionPipeline.save_pretrained`].
            kwargs: `repo_id` (defaults to the folder's name), `private`, `token`, `commit_message`, `create_pr`.
        """
        scheduler = self.scheduler
        if not isinstance(scheduler, ProgressiveDistillationScheduler):
            # Another sampler was set; what is stored is the model and its schedule.
            scheduler = ProgressiveDistillationScheduler.from_config(scheduler.config)
        save_pipeline(self.unet, scheduler, save_directory, safe_serialization, variant, max_shard_size)
        if push_to_hub:
            repo_id = kwargs.pop("repo_id", Path(save_directory).name)
            where = {"private": kwargs.pop("private", None), "token": kwargs.get("token")}
            self._upload_folder(save_directory, create_repo(repo_id, exist_ok=True, **where).repo_id, **kwargs)


def register() -> None:
    """
    Let `DiffusionPipeline.from_pretrained` find the pipelines whose `_class_name` is ours.

    diffusers looks the class up by name in its own module. Importing [`ProgressiveDistillationPipeline`] does this.
    """
    diffusers.ProgressiveDistillationPipeline = ProgressiveDistillationPipeline


register()
