"""Image k's noise depends on (seed, k) alone."""

import torch

from diffusers_progdistill.evaluation.sampling import noise_of


def test_noise_is_a_function_of_seed_and_number():
    whole, generators = noise_of(0, 0, 6, (1, 4, 4))
    part, generators_of_part = noise_of(0, 2, 3, (1, 4, 4))
    assert torch.equal(whole[2:5], part)
    assert torch.equal(torch.rand(1, generator=generators[2]), torch.rand(1, generator=generators_of_part[0]))
    assert not torch.equal(whole, noise_of(1, 0, 6, (1, 4, 4))[0])
    assert len({tuple(row.flatten().tolist()) for row in whole}) == 6
