"""The parts of the loss: which examples are judged by the finished image, and what an error costs there."""

import pytest
import torch

from diffusers_progdistill.denoisers.base import Denoiser
from diffusers_progdistill.objectives.base import Batch, Examples
from diffusers_progdistill.objectives.denoising import DenoisingObjective
from diffusers_progdistill.objectives.distillation import DistillationLoss, DistillationObjective
from diffusers_progdistill.processes.betas import BetaProcess, canonical_betas
from diffusers_progdistill.processes.clipping import LARGEST_HIDDEN_ERROR, hidden_error
from diffusers_progdistill.processes.targets import TargetGrid


CANONICAL = BetaProcess(canonical_betas(), 1024)
STUDENT = Denoiser(None, CANONICAL, "sample")


def make_objective(num_steps, dtype=torch.float32, clip_margin=None):
    teacher = Denoiser(lambda z, time, return_dict: (torch.zeros_like(z),), CANONICAL, "sample")
    grid = TargetGrid.create(CANONICAL, num_steps).to(dtype=dtype)
    return DistillationObjective(STUDENT, teacher, grid, DistillationLoss("constant", clip_margin=clip_margin))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_steps", [1, 2, 3, 7, 8, 1000, 4096])
def test_the_last_step_is_marked_and_no_other(num_steps, dtype):
    rows = torch.arange(num_steps, dtype=torch.float64)
    # The ends and the middle of each interval of the uniform numbers.
    uniform = torch.cat([(rows + part) / num_steps for part in (1e-6, 0.5, 1 - 1e-3)]).to(dtype)
    images = torch.zeros(len(uniform), 1, 1, 1, dtype=dtype)
    examples = make_objective(num_steps, dtype).make_examples(Batch(images, {}, uniform, torch.ones_like(images)))
    assert examples.is_last.dtype == torch.bool
    assert torch.equal(examples.is_last, (rows == 0).repeat(3))
    assert torch.equal(examples.is_last, examples.angle == examples.angle.min())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_a_cast_of_the_angles_does_not_switch_it_off(dtype):
    objective = make_objective(4, clip_margin=0.7)
    batch = Batch(torch.zeros(4, 1, 1, 1), {}, (torch.arange(4) + 0.5) / 4, torch.ones(4, 1, 1, 1))
    examples = objective.make_examples(batch)
    examples.target = torch.full_like(examples.target, 1.5)
    examples.angle = examples.angle.to(dtype)
    said = torch.full((4, 1, 1, 1), 1.25, requires_grad=True)
    loss = objective.compute_losses(lambda z, *_, **__: (said,), examples)["loss"]
    assert loss.item() == 3 / 4 * 0.25**2
    # The gradient of a square is twice the error, here of one pixel in each of four images.
    loss.backward()
    assert (said.grad.flatten() * 4 / 2).tolist() == [0, -0.25, -0.25, -0.25]


def test_the_mark_travels_with_shared_targets():
    z, angle = torch.zeros(2, 1, 1, 1), torch.ones(2)
    batches = [Examples(z, angle, angle, z, torch.tensor(mark), {}) for mark in ([True, False], [False, False])]
    stacked = Examples.stack(batches)
    assert torch.equal(stacked.is_last, torch.tensor([[True, False], [False, False]]))
    assert stacked.select(torch.tensor([1, 0]), torch.tensor([1, 0])).is_last.tolist() == [False, True]
    batch = Batch(z, {}, torch.tensor([0.2, 0.7]), z)
    base = DenoisingObjective(STUDENT, "constant").make_examples(batch)
    assert not base.is_last.any() and not Examples.stack([base, base]).is_last.any()


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("margin", [0.0, 0.25, 0.7])
@pytest.mark.parametrize(
    "x, target, shown, is_pulled",
    [
        # Black or white that is not so yet is pulled beyond the range.
        (0.5, 1.2, -0.5, True), (0.9, 1.0, -0.1, True), (-0.3, 1.5, -1.3, True), (-1.5, 1.25, -2.5, True),
        # Both beyond: nothing is seen.
        (1.25, 1.75, 0.0, False), (3.0, 1.0, 0.0, False),
        # Within the range, and a little beyond it.
        (0.2, 0.5, -0.3, False), (1.5, 0.95, 0.05, False),
        # Shown too wrong to stay out there: it counts as it is.
        (1.5, 0.5, 1.0, False), (1.25, 0.875, 0.375, False),
    ],
)  # fmt: skip
def test_what_an_error_costs_by_the_finished_image(x, target, shown, is_pulled, margin, sign):
    x, target = (sign * torch.tensor([[v]], dtype=torch.float64) for v in (x, target))
    error = (x - target - hidden_error(x, target, margin)).item()
    assert error == pytest.approx(sign * (shown - (margin if is_pulled else 0.0)), abs=1e-12)


def test_the_largest_error_that_may_hide():
    target = torch.tensor([1 - LARGEST_HIDDEN_ERROR + 1e-3, 1 - LARGEST_HIDDEN_ERROR - 1e-3], dtype=torch.float64)
    x = torch.full_like(target, 1.5)
    error = x - target - hidden_error(x, target, 0.7)
    torch.testing.assert_close(error, torch.stack([1 - target[0], 1.5 - target[1]]))
