"""The options of the loss of a student: docs/loss.md says what each part does."""

from dataclasses import dataclass
from typing import Literal, get_args

from ..errors import InputError
from .options import option, switch


LossType = Literal["l2", "huber"]


@dataclass
class LossOptions:
    """What an error of a student costs. A part that is not given is what the recipe says (see `recipes.py`)."""

    loss_type: LossType | None = option(
        None,
        "What the error of an image costs: 'l2', its square, as in the paper, or 'huber', its pseudo-Huber distance."
        " Default: l2.",
    )
    huber_c: float = option(
        0.00054, "Root mean squared error of an image up to which the pseudo-Huber loss is as the square."
    )
    clip_loss: bool | None = switch(
        "Judge a student's last step by the finished image, whose values are cut off at the ends of the range: an"
        " error beyond them costs nothing. For images with plain black or white grounds. Default: off, as in the"
        " paper."
    )
    clip_margin: float = option(
        0.7,
        "How far beyond the range --clip_loss pulls values that must be black or white, so that a student's small"
        " errors stay beyond it, where they are not seen; the range is 2 wide, and 0 does not pull.",
    )

    def check_loss(self):
        """
        Raise for values that cannot be right.

        Raises:
            [`InputError`]: If the loss is not known, or a constant of it is not in its range.
        """
        if self.loss_type is not None and self.loss_type not in get_args(LossType):
            raise InputError(f"--loss_type must be l2 or huber, not {self.loss_type}")
        if not 0 < self.huber_c < float("inf"):
            raise InputError(f"--huber_c must be a positive number, not {self.huber_c}")
        if not 0 <= self.clip_margin < float("inf"):
            raise InputError(f"--clip_margin must be zero or a positive number, not {self.clip_margin}")
