"""The objectives that `distill --objective` names, each of which is one line here."""

from importlib import import_module


# The module below this package, and its class: options name them without loading torch.
OBJECTIVES = {
    "distillation": "distillation.DistillationObjective",
    "consistency": "consistency.ConsistencyObjective",
}


def find_objective(name: str) -> type:
    """The [`TeacherObjective`] of a name in `OBJECTIVES`."""
    module, class_name = OBJECTIVES[name].split(".")
    return getattr(import_module(f".{module}", __package__), class_name)
