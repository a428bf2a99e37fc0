"""Ending a stage before its planned updates, once its loss has settled (`--early_stopping_threshold`)."""

# Logging intervals whose mean loss is compared with that of as many before.
WINDOW = 5
# Updates over which the rate then falls to 0, as a share of those made by then: a network must end at a low rate.
LANDING = 0.25


class EarlyEnd:
    """
    When a stage ends, as far as is known by now.

    Args:
        planned (`int`): Updates of the stage, which are never exceeded.
        warmup (`int`): Updates over which the rate rises, whose losses say nothing.
        threshold (`float`): The stage is on its way to the end once the mean loss of five logging intervals is less
            than this share below that of the five before; 0 keeps to the plan.
    """

    def __init__(self, planned: int, warmup: int, threshold: float):
        self.end, self.warmup, self.threshold = planned, warmup, threshold
        self.losses, self.settled = [], None

    def note(self, update: int, loss: float | None):
        """The mean loss of a logging interval, the same in every process."""
        if not self.threshold or self.settled is not None or loss is None or update <= self.warmup:
            return
        self.losses = [*self.losses, loss][-2 * WINDOW :]
        before, after = sum(self.losses[:WINDOW]), sum(self.losses[WINDOW:])
        if len(self.losses) == 2 * WINDOW and after > (1 - self.threshold) * before:
            self.settled, self.end = update, min(self.end, update + max(1, round(LANDING * update)))

    def factor(self, rate, update: int) -> float:
        """The learning rate's factor: as planned, and from where the loss has settled linearly to 0."""
        if self.settled is None:
            return rate(update)
        return rate(self.settled) * (self.end - update) / (self.end - self.settled)

    def state(self) -> dict:
        """What a checkpoint keeps."""
        return {"end": self.end, "losses": self.losses, "settled": self.settled}

    def restore(self, state: dict | None):
        """Go on from a checkpoint; older ones have no such state."""
        if state is not None:
            self.end, self.losses, self.settled = state["end"], state["losses"], state["settled"]
