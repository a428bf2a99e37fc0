"""Invariants 1-3 on every process, for every prediction type and length of a stage."""

import math

import pytest
import torch
from helpers.noise_processes import (
    CASES,
    PROCESSES,
    find_error,
    find_native_time,
    list_levels,
    randn,
    step_natively,
    to_native,
)

from diffusers_progdistill.denoisers.base import Denoiser
from diffusers_progdistill.objectives.base import Batch
from diffusers_progdistill.objectives.distillation import DistillationLoss, DistillationObjective
from diffusers_progdistill.processes.base import NoiseLevel
from diffusers_progdistill.processes.prediction import from_sample
from diffusers_progdistill.processes.solvers import DDIMStep
from diffusers_progdistill.processes.targets import TargetGrid, teacher_target


NUM_STEPS = [1, 2, 4, 8]
RULES = [(2, False), (4, False), (8, False), (2, True), (4, True), (8, True)]


def make_teacher(name, kind):
    """A nonlinear network, different at every time, which sees and says what those of its process do."""
    process = PROCESSES[name]
    largest = max(abs(process.level(1)[1]), 1)

    def network(inputs, time, return_dict):
        t = time[:, None, None, None] / largest
        if name == "exploding":
            # Samples of a thousand deviations: a network that did not norm them would make chaos of their rounding.
            inputs = (2 * inputs - 1) / (1 + 4 * time[:, None, None, None] ** 2).sqrt()
        output = torch.tanh(inputs * (1 + t)) + torch.sin(7 * t + inputs)
        return (torch.cat([output, output.cos()], 1) if kind == "sample_epsilon" else output,)

    return Denoiser(network, process, kind)


def at(level, count):
    return NoiseLevel(*(torch.full((count,), value, dtype=torch.float64) for value in level))


def step_teacher(teacher, z, levels, midpoint):
    """The teacher's own steps between neighbours, or by the midpoint rule over pairs of them."""
    process = teacher.process
    stride = 2 if midpoint else 1
    for k in range(0, len(levels) - 1, stride):
        x = teacher.predict_x0(z, at(levels[k], len(z)), {})
        if midpoint:
            middle = step_natively(process, z, x, levels[k], levels[k + 1])
            x = teacher.predict_x0(middle, at(levels[k + 1], len(z)), {})
        z = step_natively(process, z, x, levels[k], levels[k + stride])
    return z


def cut_levels(process, num_steps, factor):
    """For i = N ... 1 the levels that the teacher passes through in the student's step from i/N."""
    fine = list_levels(process, num_steps * factor)
    return [fine[k * factor : (k + 1) * factor + 1] for k in range(num_steps)]


@pytest.mark.parametrize("factor, midpoint", RULES)
@pytest.mark.parametrize("name, kind", CASES)
def test_a_students_step_lands_where_the_teachers_native_steps_land(name, kind, factor, midpoint):
    teacher = make_teacher(name, kind)
    for num_steps in NUM_STEPS:
        grid = TargetGrid.create(teacher.process, num_steps, factor, midpoint)
        for i, levels in zip(range(num_steps, 0, -1), cut_levels(teacher.process, num_steps, factor)):
            z, rows = randn(2, 1, 4, 4, seed=i), grid.at(torch.tensor([i - 1, i - 1]))
            target = teacher_target(lambda sample, level: teacher.predict_x0(sample, level, {}), z, rows)
            landed = step_natively(teacher.process, z, target, levels[0], levels[-1])
            expected = step_teacher(teacher, z, levels, midpoint)
            # x of an epsilon has its error divided by alpha.
            tolerance = 1e-12 / (math.cos(levels[0][0]) if kind == "epsilon" else 1)
            assert find_error(landed, expected) <= tolerance


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("name, kind", CASES)
def test_a_student_equal_to_the_composite_has_no_loss(name, kind, factor):
    teacher, student = make_teacher(name, "v_prediction"), Denoiser(None, PROCESSES[name], kind)
    loss = DistillationLoss("snr" if kind == "epsilon" else "truncated_snr")
    for num_steps in NUM_STEPS:
        grid = TargetGrid.create(teacher.process, num_steps, factor)
        objective = DistillationObjective(student, teacher, grid, loss)
        shape = (num_steps, 1, 4, 4)
        uniform = (torch.arange(num_steps, dtype=torch.float64) + 0.5) / num_steps
        examples = objective.make_examples(Batch(randn(*shape, seed=1), {}, uniform, randn(*shape, seed=2)))

        outputs = []
        for i, levels in zip(range(num_steps, 0, -1), cut_levels(teacher.process, num_steps, factor)):
            z = examples.z[i - 1 : i]
            landed = step_teacher(teacher, z, levels, midpoint=False)
            angle, end = levels[0][0], levels[-1][0]
            x = (landed * math.sin(angle) - math.sin(end) * z) / math.sin(angle - end)
            outputs.append(from_sample(x, z, math.cos(angle), math.sin(angle), kind))
        output = torch.cat(outputs[::-1])
        if kind == "sample_epsilon":
            # Both heads say the same: x, and the epsilon that it leaves.
            angle = examples.angle[:, None, None, None]
            output = torch.cat([output, (examples.z - angle.cos() * output) / angle.sin()], 1)
        losses = objective.compute_losses(lambda *_, output=output, **__: (output,), examples)
        assert losses["loss"].item() <= 1e-22


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("name, kind", CASES)
def test_gaussian_data_shrink_by_the_closed_form(name, kind, factor):
    """On data N(0, 1) the best x is alpha z, and a step over an angle makes z smaller by its cosine."""
    process = PROCESSES[name]
    for num_steps in NUM_STEPS:
        grid = TargetGrid.create(process, num_steps, factor)
        z = torch.ones(1, 1, 1, 1, dtype=torch.float64)
        exact = 1.0
        for i, levels in zip(range(num_steps, 0, -1), cut_levels(process, num_steps, factor)):
            best = lambda sample, level: level.angle.cos()[:, None, None, None] * sample  # noqa: E731
            x = teacher_target(best, z, grid.at(torch.tensor([i - 1])))
            angle, end = levels[0][0], levels[-1][0]
            output = from_sample(x, z, math.cos(angle), math.sin(angle), kind)
            step = DDIMStep.create(angle, end, kind)
            z = step.prev[0] * z + step.prev[1] * output
            exact *= math.prod(math.cos(a - b) for (a, _), (b, _) in zip(levels, levels[1:]))
        assert z.item() == pytest.approx(exact, abs=1e-12 / (math.cos(process.max_angle) if kind == "epsilon" else 1))


# What the target is in the words of each family.


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("name", [name for name in PROCESSES if name != "zero_snr"])
def test_the_target_is_the_mean_of_the_teachers_slopes_over_native_time(name, factor):
    """The mean velocity of a flow; the mean epsilon over s, or over the tangent of the angle."""
    kind = "flow" if "flow" in name else "epsilon"
    teacher = make_teacher(name, kind)
    process, num_steps = teacher.process, 4
    grid = TargetGrid.create(process, num_steps, factor)
    for i, levels in zip(range(num_steps, 0, -1), cut_levels(process, num_steps, factor)):
        z, rows = randn(2, 1, 4, 4, seed=i), grid.at(torch.tensor([i - 1, i - 1]))
        target = teacher_target(lambda sample, level: teacher.predict_x0(sample, level, {}), z, rows)
        angle = levels[0][0]
        natives, mean, sample = [find_native_time(process, *level) for level in levels], 0.0, z
        for level, end, native, native_end in zip(levels, levels[1:], natives, natives[1:]):
            output = teacher.predict(sample, at(level, 2), {})
            mean = mean + (native - native_end) / (natives[0] - natives[-1]) * output
            x = teacher.to_x0(output, sample, at(level, 2))
            sample = step_natively(process, sample, x, level, end)
        ours = from_sample(target, z, math.cos(angle), math.sin(angle), kind)
        assert find_error(ours, mean) <= 1e-11


@pytest.mark.parametrize("name, kind", [case for case in CASES if case[1] != "sample_epsilon"])
def test_the_target_follows_from_the_steps_coefficients_alone(name, kind):
    """A step is z' = A z + B m of the output m, so two steps are one with m = ((A2 A1 - A) z + A2 B1 m1 + B2 m2)/B."""
    teacher = make_teacher(name, kind)
    process, num_steps = teacher.process, 4
    grid = TargetGrid.create(process, num_steps)
    for i, levels in zip(range(num_steps, 0, -1), cut_levels(process, num_steps, 2)):
        z, rows = randn(2, 1, 4, 4, seed=i), grid.at(torch.tensor([i - 1, i - 1]))
        target = teacher_target(lambda sample, level: teacher.predict_x0(sample, level, {}), z, rows)
        (angle, _), (middle, _), (end, _) = levels
        (a, b), (a1, b1), (a2, b2) = (
            DDIMStep.create(*pair, kind).prev for pair in ((angle, end), (angle, middle), (middle, end))
        )
        first = teacher.predict(z, at(levels[0], 2), {})
        second = teacher.predict(a1 * z + b1 * first, at(levels[1], 2), {})
        combined = ((a2 * a1 - a) * z + a2 * b1 * first + b2 * second) / b
        ours = from_sample(target, z, math.cos(angle), math.sin(angle), kind)
        assert find_error(ours, combined) <= 1e-11 / (math.cos(angle) if kind == "epsilon" else 1)


@pytest.mark.parametrize("name", PROCESSES)
def test_the_first_sample_is_noise_alone_where_the_process_ends_before_it(name):
    process, num_steps = PROCESSES[name], 4
    teacher = make_teacher(name, "sample")
    objective = DistillationObjective(teacher, teacher, TargetGrid.create(process, num_steps), DistillationLoss("snr"))
    data, noise = randn(num_steps, 1, 4, 4, seed=1), randn(num_steps, 1, 4, 4, seed=2)
    uniform = (torch.arange(num_steps, dtype=torch.float64) + 0.5) / num_steps
    examples = objective.make_examples(Batch(data, {}, uniform, noise))
    angle = examples.angle[:, None, None, None]
    mixed = angle.cos() * data + angle.sin() * noise
    assert torch.equal(examples.z[:-1], mixed[:-1])
    assert torch.equal(examples.z[-1], mixed[-1] if process.ends_in_noise else noise[-1])
    # Where they differ, it is by less than a tenth of the data's deviation, and nothing the network is told changes.
    assert (mixed[-1] - noise[-1]).abs().max() < 0.3
    seen = process.network_input(examples.z, angle)
    for i in range(num_steps):
        native = find_native_time(process, examples.angle[i].item(), examples.time[i].item())
        expected = to_native(process, examples.z[i], native)
        assert "edm" in name or find_error(seen[i], expected) <= 1e-12
