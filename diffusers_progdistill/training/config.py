"""The options of training a teacher and of distilling it, as dataclasses; their checks, which need no torch."""

from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from ..errors import InputError
from ..paths import resolve_paths
from ..record import RECORD_NAME
from .loss_options import LossOptions
from .options import option
from .trackers import tracker_names


Weighting = Literal["snr", "truncated_snr", "snr_plus_one", "constant"]
PredictionType = Literal["epsilon", "sample", "v_prediction", "sample_epsilon"]

# Options that do not change the weights of a run: they may differ when a folder is resumed.
NEUTRAL_OPTIONS = {
    *("output_dir", "cache_dir", "hub_token", "report_to", "logging_dir", "logging_steps", "dataloader_num_workers"),
    *("checkpointing_steps", "checkpoints_total_limit", "resume_from_checkpoint"),
    *("eval_images", "feature_extractor", "eval_batch_size", "dry_run", "gradient_checkpointing"),
    # What it stands for is told option by option.
    "recipe",
    *("push_to_hub", "hub_model_id", "hub_private_repo", "hub_license"),
}


@dataclass
class TrainingConfig:
    """What training a teacher and distilling one have in common."""

    output_dir: str = option("progdistill-output", "Where everything is written.")
    seed: int = option(0, "Seed of the weights, the order of the data, times and noise.")

    dataset_name: str | None = option(
        None, "'digits' (the 1,797 real 8x8 scans that scikit-learn ships), or the name of a data set on the Hub."
    )
    dataset_config_name: str | None = option(None, "The configuration of the data set on the Hub.")
    train_data_dir: str | None = option(
        None, "A folder of images (one subfolder a class, if there are classes), a parquet file or a folder of them."
    )
    train_split: str | None = option(None, "The split that is used. Default: train, if there are splits.")
    follow_links: bool = option(False, "Use images that links in the folder lead to, wherever they are.")
    image_column: str = option("image", "The column of the data set that holds the images.")
    class_column: str | None = option(
        None, "The column of the class labels (for class-conditional models); 'label' reads the class folders."
    )
    resolution: int | None = option(None, "Height and width of the images. Default: what the model was made for.")
    center_crop: bool = option(
        True, "Crop the middle of images that are not square (default); otherwise they are squeezed to a square."
    )
    background_color: str = option(
        "white", "The ground that transparent images are laid on: a colour's name or '#rrggbb'."
    )
    random_flip: bool = option(False, "Flip images left to right with probability 0.5.")
    cache_dir: str | None = option(None, "Where downloaded models and data sets are kept.")
    hub_token: str | None = option(None, "Token for private models and data sets; better given as HF_TOKEN.")
    dataloader_num_workers: int = option(0, "Processes that read images; 0 reads in the main process.")

    train_batch_size: int = option(128, "Batch size per process and per accumulated part of an update.")
    gradient_accumulation_steps: int | None = option(
        None, "Parts that an update's batch is split into. Default: what accelerate was told, else 1."
    )
    gradient_checkpointing: bool = option(False, "Trade time for memory in the backward pass.")
    learning_rate: float = option(1e-4, "The highest learning rate.")
    lr_scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"] = option(
        "linear", "How the learning rate goes on after the warm-up; 'linear' and 'cosine' go to 0."
    )
    lr_warmup_steps: int = option(0, "Updates over which the learning rate rises from 0; not with `constant`.")
    adam_beta1: float = option(0.9, "Adam's decay of the mean of the gradient.")
    adam_beta2: float = option(0.999, "Adam's decay of its square.")
    adam_weight_decay: float = option(0.0, "Decoupled weight decay.")
    adam_epsilon: float = option(1e-8, "Adam's epsilon.")
    max_grad_norm: float = option(1.0, "Norm that the gradient is clipped to.")
    mixed_precision: Literal["no", "fp16", "bf16"] | None = option(
        None, "Precision of the forward and backward passes. Default: what accelerate was told, else no."
    )

    report_to: str = option(
        "tensorboard",
        "Trackers of accelerate, several by commas: tensorboard, wandb, ...; all that are installed; or none.",
    )
    logging_dir: str = option("logs", "Folder of the tracker, inside the output folder.")
    logging_steps: int = option(50, "Updates between two lines of metrics.jsonl.")
    checkpointing_steps: int = option(500, "Updates between two checkpoints of the stage that is being trained.")
    checkpoints_total_limit: int = option(
        2, "Checkpoints that are kept, the newest ones; those of a finished stage are deleted."
    )
    resume_from_checkpoint: str = option(
        "latest",
        "'latest' goes on from the newest checkpoint that is whole, or the name of one, such as steps-8-00000500.",
    )
    dry_run: bool = option(False, "Print the plan, with a time estimated from a few updates, and write nothing.")

    def __post_init__(self):
        resolve_paths(self)

    def check(self):
        """Raise [`InputError`] for values that cannot be right, whatever the model and the data."""
        resolve_paths(self)
        for name in ("train_batch_size", *self._positive):
            self._require(name, getattr(self, name) > 0, "a positive number")
        parts = self.gradient_accumulation_steps
        self._require("gradient_accumulation_steps", parts is None or parts > 0, "a positive number")
        for name in ("logging_steps", "checkpointing_steps", "checkpoints_total_limit"):
            self._require(name, getattr(self, name) > 0, "a positive number")
        for name in ("learning_rate", "max_grad_norm", "adam_epsilon"):
            self._require(name, 0 < getattr(self, name) < float("inf"), "a positive number")
        for name in ("lr_warmup_steps", "dataloader_num_workers", "adam_weight_decay", "seed"):
            self._require(name, 0 <= getattr(self, name) < float("inf"), "zero or a positive number")
        for name in ("adam_beta1", "adam_beta2"):
            self._require(name, 0 <= getattr(self, name) < 1, "in [0, 1)")
        self._require("resolution", self.resolution is None or self.resolution > 0, "a positive number")
        if (self.dataset_name is None) == (self.train_data_dir is None):
            raise InputError("give the images by exactly one of --dataset_name and --train_data_dir")
        tracker_names(self.report_to, self.hub_token)

    _positive = ()
    # Only teachers are trained with the one, and only students for the other.
    label_dropout, stochastic_sampler = 0.0, False

    def _require(self, name: str, right: bool, what: str):
        if not right:
            raise InputError(f"--{name} must be {what}, not {getattr(self, name)}")

    def weight_settings(self) -> dict:
        """The options that change the weights. A folder is resumed only with the same ones."""
        settings = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in NEUTRAL_OPTIONS}
        # Only their product changes the weights (times the number of processes, which the caller adds).
        settings.pop("train_batch_size"), settings.pop("gradient_accumulation_steps")
        return settings


@dataclass
class TeacherConfig(TrainingConfig):
    """Options of `progdistill train-teacher` (Algorithm 1 of the paper)."""

    output_dir: str = option("teacher", "The finished teacher: a pipeline folder.")
    model_config_name_or_path: str | None = option(
        None,
        "A UNet2DModel's config.json, its folder or its name on the Hub. Default: a network that fits the images.",
    )
    max_train_steps: int = option(100_000, "Number of updates.")
    prediction_type: PredictionType = option(
        "v_prediction", "What the network predicts; sample_epsilon has two heads, twice the output channels."
    )
    weighting: Weighting = option("truncated_snr", "Weight of the error of x as a function of the noise level.")
    ema_decay: float = option(0.9999, "Decay of the average of the weights, which is what is saved.")
    label_dropout: float = option(
        0.0,
        "Share of the labels that are replaced by a last, null class, so that the model can be guided; 0.1 is usual.",
    )
    learning_rate: float = option(2e-4, "The highest learning rate.")
    lr_scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"] = option(
        "constant_with_warmup", "How the learning rate goes on after the warm-up; 'linear' and 'cosine' go to 0."
    )
    lr_warmup_steps: int = option(1000, "Updates over which the learning rate rises from 0; not with `constant`.")

    _positive = ("max_train_steps",)

    def check(self):
        super().check()
        self._require("ema_decay", 0 <= self.ema_decay < 1, "in [0, 1)")
        self._require("label_dropout", 0 <= self.label_dropout < 1, "in [0, 1)")
        if self.label_dropout and self.class_column is None:
            raise InputError("--label_dropout needs labels to drop: give --class_column")


@dataclass
class ConversionConfig(TrainingConfig):
    """Options of `progdistill convert`: a teacher of any schedule made one of the canonical schedule."""

    output_dir: str = option("converted", "The converted model: a pipeline folder.")
    pretrained_teacher_model: str = option("", "The teacher: a diffusers pipeline folder, or its name on the Hub.")
    revision: str | None = option(None, "Branch, tag or commit of the teacher on the Hub.")
    variant: str | None = option(None, "Variant of the teacher's weights, for example fp16.")
    trust_remote_code: bool = option(False, "Let code that comes with the teacher run.")

    prediction_type: PredictionType | None = option(
        None, "What the students predict. Default: what the teacher predicts, unless that is epsilon."
    )
    weighting: Weighting | None = option(
        None, "Weight of the error of x as a function of the noise level. Default: truncated_snr (snr for epsilon)."
    )
    guidance_scale: float = option(
        1.0, "Fold classifier-free guidance of this scale into the students; 1 is none. Needs a null class."
    )
    conversion_updates: int = option(
        50_000, "Updates of the conversion stage, for a teacher on another schedule, another output or with guidance."
    )
    use_ema: bool = option(
        False, "Keep an average of each student's weights; it is what is saved and teaches the next stage."
    )
    ema_decay: float = option(0.99, "Decay of that average.")

    _positive = ("conversion_updates",)

    def check(self):
        super().check()
        if not self.pretrained_teacher_model:
            raise InputError("--pretrained_teacher_model is missing: a diffusers pipeline folder or a name on the Hub")
        self._require("ema_decay", 0 <= self.ema_decay < 1, "in [0, 1)")
        self._require("guidance_scale", 1 <= self.guidance_scale < float("inf"), "a number of at least 1")


@dataclass
class DistillationConfig(LossOptions, ConversionConfig):
    """Options of `progdistill distill` (Algorithm 2 of the paper)."""

    output_dir: str = option("progdistill-output", "Where everything is written.")
    recipe: Literal["default", "paper"] | None = option(
        None,
        "What the options are that are not given: 'paper', as Salimans & Ho (2022) did, or 'default', as measured best"
        " here. Default: default, or what the run in --output_dir began with.",
    )
    start_steps: str | None = option(
        None,
        "Number of sampling steps of the teacher, which students start below; 'auto' looks where more of them hardly"
        " change its images. Default: auto (with --recipe paper 1024, on CIFAR-10 8192).",
    )
    end_steps: int = option(4, "Number of sampling steps of the last student; --start_steps halves down to it.")
    updates_per_stage: int = option(50_000, "Updates of each student; twice as many for those of 2 steps and of 1.")
    stage_factor: int = option(
        2,
        "Steps of its teacher that a student's step replaces: 2, as in the paper, or 4, 8, ... for fewer students.",
    )
    teacher_solver: str | None = option(
        None,
        "How the first stage integrates a teacher that is not a student yet: midpoint, which is of second order, or"
        " ddim, as in the paper; both ask the teacher as often. Default: midpoint.",
    )
    reuse_targets: int = option(
        1, "Updates that each target of the teacher serves; 1 asks the teacher anew for every update."
    )

    stochastic_sampler: bool = option(
        False,
        "Make an N-step student into one that is sampled with fresh noise, in N steps too (--start_steps N --end_steps"
        " N).",
    )

    eval_images: int = option(0, "Images that each student is measured with; 0 makes a picture of samples only.")
    eval_batch_size: int = option(500, "Images that are made before the processes gather them; changes no figure.")
    feature_extractor: str = option(
        "classifier",
        "Features of the Frechet distance: classifier (trained on the labels), efflite0, inception (FID), or a vision"
        " model of transformers.",
    )
    push_to_hub: bool = option(
        False, "Put each finished student on the Hub, in the background: one commit on main, and a tag steps-N."
    )
    hub_model_id: str | None = option(
        None, "The repository, name or namespace/name. Default: the name of --output_dir in your own namespace."
    )
    hub_private_repo: bool = option(False, "Make a new repository private.")
    hub_license: str = option("unknown", "The license that the model card states, such as apache-2.0.")

    _positive = ("end_steps", "updates_per_stage", "reuse_targets", "conversion_updates", "eval_batch_size")

    def __post_init__(self):
        super().__post_init__()
        # A command line knows one type for both, a number and a word.
        if isinstance(self.start_steps, str) and self.start_steps.replace("_", "").isdecimal():
            self.start_steps = int(self.start_steps)

    def check(self):
        super().check()
        number = isinstance(self.start_steps, int) and self.start_steps > 0
        self._require("start_steps", number or self.start_steps in (None, "auto"), "a positive number, or auto")
        if self.stochastic_sampler:
            self._require("start_steps", number, "a number with --stochastic_sampler")
            self._require("end_steps", self.end_steps == self.start_steps, f"--start_steps {self.start_steps} too")
            self._require("stage_factor", self.stage_factor == 2, "2 with --stochastic_sampler")
            self._require("end_steps", self.end_steps > 1, "2 or more with --stochastic_sampler")
        if number and not self.stochastic_sampler:
            self._check_doubling()
        self._require("recipe", self.recipe in (None, "default", "paper"), "default or paper")
        self._check_solver()
        self.check_loss()
        power = self.stage_factor >= 2 and self.stage_factor & (self.stage_factor - 1) == 0
        self._require("stage_factor", power, "2, 4, 8 or another power of two")
        self._require("eval_images", self.eval_images >= 0, "zero or a positive number")
        self._require("eval_images", not 0 < self.eval_images < 4, "4 or more, or 0")
        if self.eval_images and find_spec("torchmetrics") is None:
            raise InputError("--eval_images needs torchmetrics: `pip install diffusers-progdistill[eval]`")

    def _check_solver(self):
        # Once a third one, which older runs may name: what it meant is in their record.
        if self.teacher_solver == "auto" and (Path(self.output_dir) / RECORD_NAME).exists():
            return
        right = "midpoint or ddim (auto is no longer one: leave it out for midpoint)"
        self._require("teacher_solver", self.teacher_solver in (None, "midpoint", "ddim"), right)

    def _check_doubling(self):
        ratio, rest = divmod(self.start_steps, self.end_steps)
        if rest or ratio < 2 or ratio & (ratio - 1):
            near = self.end_steps * 2 ** max(1, round(ratio).bit_length() - 1)
            raise InputError(
                f"--start_steps {self.start_steps} must be --end_steps {self.end_steps} doubled once or more, such as"
                f" {near}"
            )

    def student_steps(self) -> list[int]:
        """Sampling steps of the students, in the order in which they are made."""
        if self.stochastic_sampler:
            return [self.start_steps]
        steps = [self.start_steps]
        while steps[-1] > self.end_steps:
            # The last stage takes what is left of the factor: there a step has the most to learn.
            steps.append(max(steps[-1] // self.stage_factor, self.end_steps))
        return steps[1:]

    def count_updates(self, num_steps: int) -> int:
        """Updates of one student; the paper doubles the last two stages, where a step has the most to learn."""
        return self.updates_per_stage * (2 if num_steps <= 2 else 1)
