"""The mathematics of progressive distillation: pure functions of tensors, no files and no processes."""
