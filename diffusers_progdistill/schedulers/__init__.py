from .scheduling_progressive_distillation import (
    ProgressiveDistillationScheduler,
    ProgressiveDistillationSchedulerOutput,
)


__all__ = ["ProgressiveDistillationScheduler", "ProgressiveDistillationSchedulerOutput"]
