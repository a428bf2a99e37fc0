"""What a stage trains."""

from dataclasses import dataclass

from diffusers import SchedulerMixin

from ..objectives.base import Objective
from ..objectives.stage import Stage


@dataclass(frozen=True)
class StageTask:
    """
    What a stage trains.

    Attributes:
        stage ([`Stage`]): Its place in the plan.
        objective ([`Objective`]): The loss; its student's network is what is trained.
        scheduler ([`SchedulerMixin`]): What is stored beside the network.
        ema_decay (`float`, *optional*): The network ends as the average of its weights, with this decay, which warms
            up as in diffusers' [`EMAModel`].
    """

    stage: Stage
    objective: Objective
    scheduler: SchedulerMixin
    ema_decay: float | None = None
