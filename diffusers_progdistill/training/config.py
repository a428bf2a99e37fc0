"""The options of training a teacher and of distilling it, as dataclasses; their checks, which need no torch."""

from dataclasses import FrozenInstanceError, dataclass, fields
from importlib.util import find_spec
from typing import Any, Literal, Self

from ..errors import InputError
from ..objectives.registry import OBJECTIVES
from ..options import NOT_NEGATIVE, POSITIVE, SHARE, DataOptions, Valid, neutral_option, option
from .trackers import list_trackers


Weighting = Literal["snr", "truncated_snr", "snr_plus_one", "constant"]
PredictionType = Literal["epsilon", "sample", "v_prediction", "sample_epsilon"]
Precision = Literal["no", "fp16", "bf16"]
LRScheduler = Literal["linear", "cosine", "constant", "constant_with_warmup"]

TEACHER_FLAG = "--pretrained_teacher_model"
AT_LEAST_1 = Valid(lambda value: 1 <= value < float("inf"), "a number of at least 1")
POWER_OF_TWO = Valid(lambda value: value >= 2 and value & (value - 1) == 0, "2, 4, 8 or another power of two")
# What progressive distillation alone looks at.
OF_DISTILLATION = (
    *("weighting", "stage_factor", "teacher_solver", "reuse_targets", "loss_type", "clip_loss", "stochastic_sampler"),
)
KNOWN_OBJECTIVE = Valid(lambda value: value in OBJECTIVES, f"one of {', '.join(OBJECTIVES)}")
STEPS_OR_AUTO = Valid(
    lambda value: value == "auto" or (isinstance(value, int) and value > 0), "a positive number, or auto"
)
# Precision and recall look at an image's three nearest.
ENOUGH_IMAGES = Valid(lambda value: value == 0 or value >= 4, "4 or more, or 0")


@dataclass
class TrainingConfig(DataOptions):
    """What training a teacher and distilling one have in common."""

    output_dir: str = neutral_option("progdistill-output", "Where everything is written.")
    seed: int = option(0, "Seed of the weights, the order of the data, times and noise.", NOT_NEGATIVE)

    random_flip: bool = option(False, "Flip images left to right with probability 0.5.")
    dataloader_num_workers: int = neutral_option(0, "Processes that read images; 0 is the main one.", NOT_NEGATIVE)

    train_batch_size: int = neutral_option(128, "Images of a process in a micro-batch.", POSITIVE)
    gradient_accumulation_steps: int | None = neutral_option(
        None, "Micro-batches of an update. Default: what accelerate was told, else 1.", POSITIVE
    )
    gradient_checkpointing: bool = neutral_option(False, "Trade time for memory in the backward pass.")
    learning_rate: float = option(1e-4, "The highest learning rate.", POSITIVE)
    lr_scheduler: LRScheduler = option("linear", "The learning rate after the warm-up; 'linear' and 'cosine' go to 0.")
    lr_warmup_steps: int = option(0, "Updates over which the rate rises from 0; not with `constant`.", NOT_NEGATIVE)
    adam_beta1: float = option(0.9, "Adam's decay of the mean of the gradient.", SHARE)
    adam_beta2: float = option(0.999, "Adam's decay of its square.", SHARE)
    adam_weight_decay: float = option(0.0, "Decoupled weight decay.", NOT_NEGATIVE)
    adam_epsilon: float = option(1e-8, "Adam's epsilon.", POSITIVE)
    max_grad_norm: float = option(1.0, "Norm that the gradient is clipped to.", POSITIVE)
    mixed_precision: Precision | None = option(
        None, "Precision of the passes. Default: what accelerate was told, else no."
    )

    report_to: str = neutral_option(
        "tensorboard", "Trackers: tensorboard, wandb, ..., several by commas; all; or none."
    )
    logging_dir: str = neutral_option("logs", "Folder of the tracker, inside the output folder.")
    logging_steps: int = neutral_option(50, "Updates between two lines of metrics.jsonl.", POSITIVE)
    checkpointing_steps: int = neutral_option(500, "Updates between two checkpoints of a stage.", POSITIVE)
    checkpoints_total_limit: int = neutral_option(
        2, "Newest checkpoints that are kept, until the stage ends.", POSITIVE
    )
    resume_from_checkpoint: str = neutral_option(
        "latest",
        "'latest' goes on from the newest checkpoint that is whole, or the name of one, such as steps-8-00000500.",
    )
    dry_run: bool = neutral_option(False, "Print the plan, with the time of a few updates, and write nothing.")

    def __setattr__(self, name: str, value: Any) -> None:
        if "_frozen" in vars(self):
            raise FrozenInstanceError(f"{name} of a run's own options cannot be set")
        super().__setattr__(name, value)

    def freeze(self) -> Self:
        """Let no option be set any more; [`~dataclasses.replace`] makes a copy that can be changed."""
        object.__setattr__(self, "_frozen", True)
        return self

    def check(self) -> None:
        """Raise [`InputError`] for values that cannot be right, whatever the model and the data."""
        super().check()
        if (self.dataset_name is None) == (self.train_data_dir is None):
            raise InputError("give the images by exactly one of --dataset_name and --train_data_dir")
        list_trackers(self.report_to, self.hub_token)

    def weight_settings(self) -> dict:
        """The options that change the weights. A folder is resumed only with the same ones."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.metadata["affects_weights"]}


@dataclass
class TeacherConfig(TrainingConfig):
    """Options of `progdistill train-teacher` (Algorithm 1 of the paper)."""

    output_dir: str = neutral_option("teacher", "The finished teacher: a pipeline folder.")
    model_config_name_or_path: str | None = option(
        None,
        "The config.json of diffusers' 2D UNet, its folder or its name on the Hub. Default: one that fits the images.",
    )
    max_train_steps: int = option(100_000, "Number of updates.", POSITIVE)
    prediction_type: PredictionType = option(
        "v_prediction", "What the network predicts; sample_epsilon has two heads, twice the output channels."
    )
    weighting: Weighting = option("truncated_snr", "Weight of the error of x as a function of the noise level.")
    ema_decay: float = option(0.9999, "Decay of the average of the weights, which is what is saved.", SHARE)
    label_dropout: float = option(
        0.0,
        "Share of the labels that are replaced by a last, null class, so that the model can be guided; 0.1 is usual.",
        SHARE,
    )
    learning_rate: float = option(2e-4, "The highest learning rate.", POSITIVE)
    lr_scheduler: LRScheduler = option(
        "constant_with_warmup", "The learning rate after the warm-up; 'linear' and 'cosine' go to 0."
    )
    lr_warmup_steps: int = option(1000, "Updates over which the rate rises from 0; not with `constant`.", NOT_NEGATIVE)

    def check(self) -> None:
        super().check()
        if self.label_dropout and self.class_column is None:
            raise InputError("--label_dropout needs labels to drop: give --class_column")


@dataclass
class ConversionConfig(TrainingConfig):
    """Options of `progdistill convert`: a teacher of any schedule made one of the canonical schedule."""

    output_dir: str = neutral_option("converted", "The converted model: a pipeline folder.")
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
    guidance_scale: float = option(1.0, "Guidance that students learn; 1 is none. Needs a null class.", AT_LEAST_1)
    conversion_updates: int = option(50_000, "Updates of the conversion stage, where there must be one.", POSITIVE)
    use_ema: bool = option(
        False, "Keep an average of each student's weights; it is what is saved and teaches the next stage."
    )
    ema_decay: float = option(0.99, "Decay of that average.", SHARE)

    def check(self) -> None:
        super().check()
        if not self.pretrained_teacher_model:
            raise InputError(f"{TEACHER_FLAG} is missing: a diffusers pipeline folder or a name on the Hub")


@dataclass
class DistillationConfig(ConversionConfig):
    """Options of `progdistill distill` (Algorithm 2 of the paper)."""

    output_dir: str = neutral_option("progdistill-output", "Where everything is written.")
    recipe: Literal["default", "paper"] | None = neutral_option(
        None,
        "What the options are that are not given: 'paper', as Salimans & Ho (2022) did, or 'default', as measured best"
        " here. Default: default, or what the run in --output_dir began with.",
    )
    objective: str = option(
        "distillation",
        "What students learn: 'distillation', progressive distillation, or 'consistency', a baseline: one student of"
        " --end_steps by consistency distillation.",
        KNOWN_OBJECTIVE,
    )
    start_steps: str | None = option(
        None,
        "Number of sampling steps of the teacher, which students start below; 'auto' looks where more of them hardly"
        " change its images. Default: auto (with --recipe paper 1024, on CIFAR-10 8192).",
        STEPS_OR_AUTO,
    )
    end_steps: int = option(4, "Sampling steps of the last student: --start_steps, halved again and again.", POSITIVE)
    updates_per_stage: int = option(50_000, "Updates of a student; twice as many for 2 steps and for 1.", POSITIVE)
    stage_factor: int = option(
        2,
        "Steps of its teacher that a student's step replaces: 2, as in the paper, or 4, 8, ... for fewer students.",
        POWER_OF_TWO,
    )
    teacher_solver: Literal["midpoint", "ddim"] | None = option(
        None,
        "How the first stage integrates a teacher that is not a student yet: midpoint, which is of second order, or"
        " ddim, as in the paper; both ask the teacher as often. Default: midpoint.",
    )
    reuse_targets: int = option(
        1, "Updates that a target of the teacher serves; 1 asks it for every update.", POSITIVE
    )

    loss_type: Literal["l2", "huber"] | None = option(
        None,
        "What the error of an image costs: 'l2', its square, as in the paper, or 'huber', its pseudo-Huber distance."
        " Default: l2.",
    )
    huber_c: float = option(0.00054, "RMS error of an image up to which the Huber loss is as the square.", POSITIVE)
    clip_loss: bool | None = option(
        None,
        "Judge a student's last step by the finished image, whose values are cut off at the ends of the range: an"
        " error beyond them costs nothing. For images with plain black or white grounds. Default: off, as in the"
        " paper.",
    )
    clip_margin: float = option(
        0.7,
        "How far beyond the range --clip_loss pulls values that must be black or white, so that a student's small"
        " errors stay beyond it, where they are not seen; the range is 2 wide, and 0 does not pull.",
        NOT_NEGATIVE,
    )
    stochastic_sampler: bool = option(
        False,
        "Make an N-step student into one that is sampled with fresh noise, in N steps too (--start_steps N --end_steps"
        " N).",
    )

    eval_images: int = neutral_option(0, "Images that measure each student; 0 makes a picture only.", ENOUGH_IMAGES)
    eval_batch_size: int = neutral_option(
        500, "Images that are made at once to be measured; changes no figure.", POSITIVE
    )
    feature_extractor: str = neutral_option(
        "classifier",
        "Features of the Frechet distance: classifier (trained on the labels), efflite0, inception (FID), or a vision"
        " model of transformers.",
    )
    push_to_hub: bool = neutral_option(
        False, "Put each finished student on the Hub, in the background: one commit on main, and a tag steps-N."
    )
    hub_model_id: str | None = neutral_option(
        None, "The repository, name or namespace/name. Default: the name of --output_dir in your own namespace."
    )
    hub_private_repo: bool = neutral_option(False, "Make a new repository private.")
    hub_license: str = neutral_option("unknown", "The license that the model card states, such as apache-2.0.")

    def __post_init__(self) -> None:
        super().__post_init__()
        # A command line knows one type for both, a number and a word.
        if isinstance(self.start_steps, str) and self.start_steps.replace("_", "").isdecimal():
            self.start_steps = int(self.start_steps)

    def check(self) -> None:
        super().check()
        if self.stochastic_sampler:
            is_number = isinstance(self.start_steps, int)
            self.require("start_steps", is_number, "a number with --stochastic_sampler")
            self.require("end_steps", self.end_steps == self.start_steps, f"--start_steps {self.start_steps} too")
            self.require("stage_factor", self.stage_factor == 2, "2 with --stochastic_sampler")
            self.require("end_steps", self.end_steps > 1, "2 or more with --stochastic_sampler")
        elif isinstance(self.start_steps, int):
            self.check_steps()
        if self.objective != "distillation":
            for name in OF_DISTILLATION:
                is_default = getattr(self, name) == type(self).__dataclass_fields__[name].default
                self.require(name, is_default, f"left out with --objective {self.objective}, which has none")
        if self.eval_images and find_spec("torchmetrics") is None:
            raise InputError("--eval_images needs torchmetrics: `pip install diffusers-progdistill[eval]`")

    def check_steps(self) -> None:
        """Refuse numbers of steps of which one is not the other, doubled."""
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
        if self.objective == "consistency":
            return [self.end_steps]
        steps = [self.start_steps]
        while steps[-1] > self.end_steps:
            # The last stage takes what is left of the factor: there a step has the most to learn.
            steps.append(max(steps[-1] // self.stage_factor, self.end_steps))
        return steps[1:]

    def count_updates(self, num_steps: int) -> int:
        """Updates of one student; the paper doubles the last two stages, where a step has the most to learn."""
        return self.updates_per_stage * (2 if num_steps <= 2 else 1)
