"""fp16's loss scale: kept from stage to stage, and its search told from divergence."""

import torch


# A scale as small as this hides no overflow of its own: a gradient that is not finite here is not finite at all.
LEAST_SCALE = 1.0


def read_scale(accelerator) -> dict | None:
    """The state of the loss scaler as JSON values; `None` without one."""
    return None if accelerator.scaler is None else accelerator.scaler.state_dict()


def restore_scale(accelerator, state: dict | None):
    """Go on with a scale that [`read_scale`] gave; older records and checkpoints have none."""
    if accelerator.scaler is not None and state:
        accelerator.scaler.load_state_dict(state)


def is_searching(scaler, device: torch.device) -> torch.Tensor:
    """
    Whether an overflow may be the scale's fault: 1.0 while the scale can still fall, else 0.0. Nothing is read back
    from the device.
    """
    # `get_scale` would wait for the device; this gives the same number there.
    scale = scaler.scale(torch.ones((), device=device))
    return (scale > LEAST_SCALE).float()
