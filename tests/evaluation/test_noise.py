"""Image k's noise depends on (seed, k) alone."""

import torch

from diffusers_progdistill.evaluation.sampling import draw_noise


def test_noise_is_a_function_of_seed_and_number():
    whole, generators = draw_noise(0, 0, 6, (1, 4, 4))
    part, generators_of_part = draw_noise(0, 2, 3, (1, 4, 4))
    assert torch.equal(whole[2:5], part)
    assert torch.equal(torch.rand(1, generator=generators[2]), torch.rand(1, generator=generators_of_part[0]))
    assert not torch.equal(whole, draw_noise(1, 0, 6, (1, 4, 4))[0])
    assert len({tuple(row.flatten().tolist()) for row in whole}) == 6
