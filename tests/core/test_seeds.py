"""Counter-based noise: its distribution, and that every argument matters."""

from __future__ import annotations

import numpy as np
import pytest

from ramify.core.seeds import child_seed, gumbel_noise


def test_noise_is_gumbel_and_depends_on_every_argument() -> None:
    noise = gumbel_noise([1, 1, 2], [0, 1, 0], 20_000)
    assert len({row.tobytes() for row in noise}) == 3
    assert np.array_equal(noise[:1], gumbel_noise([1], [0], 20_000))
    # mean is Euler's constant, variance pi^2 / 6; 20 000 draws err by about 0.01 and 0.03
    assert noise.mean() == pytest.approx(0.5772, abs=0.03)
    assert noise.var() == pytest.approx(np.pi**2 / 6, abs=0.08)
    assert abs(np.corrcoef(noise)[np.triu_indices(3, 1)]).max() < 0.03
    # a shorter vocabulary is a prefix: noise belongs to the token, not to its place
    assert np.array_equal(noise[0, :100], gumbel_noise([1], [0], 100)[0])


def test_child_seeds_differ_and_the_first_child_inherits() -> None:
    seeds = [child_seed(42, index) for index in range(1000)]
    assert seeds[0] == 42 and len(set(seeds)) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)
