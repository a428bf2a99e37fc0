"""The objectives that `distill --objective` names, each of which is one line here."""

from .base import TeacherObjective
from .consistency import ConsistencyObjective
from .distillation import DistillationObjective


OBJECTIVES: dict[str, type[TeacherObjective]] = {
    "distillation": DistillationObjective,
    "consistency": ConsistencyObjective,
}
