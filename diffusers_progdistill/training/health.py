"""Losses and gradients that are not finite: skipped on the device, counted, and too many of them end the run."""

import torch


MOST_IN_A_ROW = 10
MOST_SHARE = 0.01


class Health:
    """
    Sums since the last logging update, and counts of the stage, on the device. Nothing is read from it but in
    [`Health.read`].

    Args:
        accelerator ([`~accelerate.Accelerator`]): Several processes skip an update together.
        planned (`int`): Updates of the stage.
    """

    NAMES = ("loss_sum", "good", "skipped", "in_a_row", "worst")

    def __init__(self, accelerator, planned: int):
        self.accelerator, self.planned = accelerator, planned
        for name in self.NAMES:
            setattr(self, name, torch.zeros((), device=accelerator.device))

    def judge(self, loss: torch.Tensor, grad_norm: torch.Tensor) -> torch.Tensor:
        """
        Count an update.

        Returns:
            `torch.Tensor`: 1.0 if the update must be skipped, else 0.0; what fused AdamW takes as `found_inf`.
        """
        bad = (~(torch.isfinite(loss) & torch.isfinite(grad_norm))).float()
        if self.accelerator.num_processes > 1:
            bad = self.accelerator.reduce(bad, "sum").clamp(max=1)
        self.loss_sum += torch.where(bad > 0, 0.0, loss)
        self.good += 1 - bad
        self.skipped += bad
        self.in_a_row.add_(1).mul_(bad)
        torch.maximum(self.worst, self.in_a_row, out=self.worst)
        return bad

    def read(self, stage_name: str, update: int) -> tuple[float | None, int]:
        """
        The mean loss of all processes since the last call, and the number of updates skipped in the stage.

        Raises:
            `FloatingPointError`: If more than 10 in a row, or 1 % of the stage's updates, were skipped.
        """
        sums = self.accelerator.reduce(self._stacked(), "mean").tolist()
        loss_sum, good, skipped, _, worst = sums
        self.loss_sum.zero_(), self.good.zero_()
        if worst > MOST_IN_A_ROW or skipped > MOST_SHARE * self.planned:
            raise FloatingPointError(
                f"stage {stage_name}, update {update}: {skipped:.0f} updates had a loss or gradient that is not"
                f" finite, up to {worst:.0f} of them in a row; try a lower --learning_rate. Finished students are kept"
            )
        return (loss_sum / good if good else None), int(skipped)

    def _stacked(self) -> torch.Tensor:
        return torch.stack([getattr(self, name) for name in self.NAMES])

    def values(self) -> list[list[float]]:
        """The counts of every process: what a checkpoint keeps."""
        return self.accelerator.gather(self._stacked()[None]).tolist()

    def restore(self, values: list[list[float]]):
        """Go on from a checkpoint's counts; with another number of processes, from their mean."""
        same = len(values) == self.accelerator.num_processes
        own = values[self.accelerator.process_index] if same else [sum(v) / len(values) for v in zip(*values)]
        for name, value in zip(self.NAMES, own):
            getattr(self, name).fill_(value)
