from .scheduling_progressive_distillation import ProgressiveDistillationScheduler


__all__ = ["ProgressiveDistillationScheduler"]
