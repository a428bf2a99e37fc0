"""The mathematics of progressive distillation: pure functions of tensors and angles, no files and no processes."""
