"""Losses and gradients that are not finite: skipped on the device, counted, and too many of them end the run."""

import torch
from accelerate import Accelerator

from .optimizer import is_searching


MOST_IN_A_ROW = 10
MOST_SHARE = 0.01


class Health:
    """
    Sums of the named losses since the last logging update, and counts of a stage of so many `planned` updates, on the
    device. Nothing is read from it but in [`Health.read`]. Several processes skip an update together.
    """

    def __init__(self, accelerator: Accelerator, planned: int, losses: tuple[str, ...] = ("loss",)) -> None:
        self.accelerator, self.planned, self.losses = accelerator, planned, losses
        self.state = torch.zeros(5 + len(losses), device=accelerator.device)
        # `searched` counts updates that fp16 skipped to find its loss scale; no run ends for them.
        self.good, self.skipped, self.in_a_row, self.worst, self.searched, *_ = self.state
        self.sums = self.state[5:]

    def judge(self, losses: dict[str, torch.Tensor], grad_norms: list[torch.Tensor]) -> torch.Tensor:
        """Count an update; 1.0 if it must be skipped, else 0.0, which is what [`GuardedStep`] takes."""
        values = torch.stack([losses[name] for name in self.losses])
        finite = values.isfinite().all()
        bad = torch.stack([~finite, ~(finite & torch.stack(grad_norms).isfinite().all())]).float()
        if self.accelerator.num_processes > 1:
            bad = self.accelerator.reduce(bad, "sum").clamp(max=1)
        bad_loss, bad = bad
        self.sums += torch.where(bad > 0, 0.0, values)
        self.good += 1 - bad
        counted = bad
        if self.accelerator.scaler is not None:
            # The loss is formed without the scale: where it is finite, the scale may be too large for the gradient.
            searched = (bad - bad_loss) * is_searching(self.accelerator.scaler, bad.device)
            counted = bad - searched
            self.searched += searched
        self.skipped += counted
        self.in_a_row.add_(1).mul_(counted)
        torch.maximum(self.worst, self.in_a_row, out=self.worst)
        return bad

    def read(self, stage_name: str, update: int) -> tuple[dict[str, float | None], int]:
        """
        The mean losses of all processes since the last call, `None` where no update was good, and the number of
        updates skipped in the stage, those of fp16's search for a loss scale among them. Too many of the others end
        the run with a `FloatingPointError`.
        """
        good, skipped, _, worst, searched, *sums = self.accelerator.reduce(self.state, "mean").tolist()
        self.sums.zero_()
        self.good.zero_()
        if worst > MOST_IN_A_ROW or skipped > MOST_SHARE * self.planned:
            raise FloatingPointError(
                f"stage {stage_name}, update {update}: {skipped:.0f} updates had a loss or gradient that is not"
                f" finite, up to {worst:.0f} of them in a row; try a lower --learning_rate. Finished students are kept"
            )
        means = {name: value / good if good else None for name, value in zip(self.losses, sums)}
        return means, int(skipped + searched)

    def values(self) -> list[list[float]]:
        """The counts and sums of every process: what a checkpoint keeps."""
        return self.accelerator.gather(self.state[None]).tolist()

    def restore(self, values: list[list[float]]) -> None:
        """Go on from a checkpoint's counts; with another number of processes, from their mean."""
        same = len(values) == self.accelerator.num_processes
        own = values[self.accelerator.process_index] if same else [sum(v) / len(values) for v in zip(*values)]
        self.state.copy_(torch.tensor(own))
