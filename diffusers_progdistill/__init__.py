"""Progressive distillation (Salimans & Ho, 2022) for diffusers: few-step students of many-step pipelines."""

import importlib


__version__ = "0.1.0"

# Public names and where they live. Nothing heavy is imported until a name is asked for.
_PUBLIC = {
    "ProgressiveDistillationScheduler": "schedulers.scheduling_progressive_distillation",
    "ProgressiveDistillationPipeline": "pipelines.pipeline_progressive_distillation",
    "register": "pipelines.pipeline_progressive_distillation",
    "save_pipeline": "pipelines.export",
    "convert": "training.convert",
    "distill": "training.chain",
    "train_teacher": "training.teacher",
    "ConversionConfig": "training.config",
    "DistillationConfig": "training.config",
    "TeacherConfig": "training.config",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> object:
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
