"""A stage of a run, as a plan has it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """
    One stage of a plan.

    Attributes:
        name (`str`): Its folder, `"teacher"` or `"steps-N"`.
        updates (`int`): Optimizer steps.
        passes_per_update (`float`): Cost in forward passes of the network, a backward pass counting as two: 3 for
            training a teacher, 4 for a conversion (5 with guidance), 5 or more for a distillation.
        num_steps (`int`, *optional*): N of a distillation stage.
        factor (`int`): Steps of the teacher that a step of the student replaces.
        reuse (`int`): Updates that each target of the teacher serves.
        midpoint (`bool`): Whether the teacher's steps are taken in pairs, by the midpoint rule.
        label_dropout (`float`): Share of the labels that are replaced by the null class.
    """

    name: str
    updates: int
    passes_per_update: float
    num_steps: int | None = None
    factor: int = 2
    reuse: int = 1
    midpoint: bool = False
    label_dropout: float = 0.0

    @property
    def student_steps(self) -> int:
        """N of a distillation stage, which has one."""
        assert self.num_steps is not None
        return self.num_steps

    @property
    def is_distillation(self) -> bool:
        return self.num_steps is not None

    @property
    def seed(self) -> int:
        """The number that enters the seeds of its order, noise and times."""
        return self.num_steps or 0

    @property
    def kind(self) -> tuple[bool, int]:
        """Stages of one kind take the same time an update."""
        return self.is_distillation, self.factor

    @property
    def forward_passes(self) -> int:
        return round(self.updates * self.passes_per_update)
