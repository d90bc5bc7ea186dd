"""Integration and guidance, against closed forms and diffusers' scheduler."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from blip3o.errors import ConfigError, ShapeError
from blip3o.flow.sampler import guide, integrate, sample_noise, sampling_sigmas


@pytest.mark.parametrize("shift", [1.0, 1.7, 3.0])
def test_levels_equal_those_of_diffusers(shift: float) -> None:
    for steps in (1, 2, 7, 30, 50, 99):
        scheduler = FlowMatchEulerDiscreteScheduler(1000, shift=shift)
        scheduler.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps))
        assert torch.equal(sampling_sigmas(steps, shift), scheduler.sigmas)


@pytest.mark.parametrize("solver", ["euler", "heun"])
@pytest.mark.parametrize("steps", [1, 3, 30])
def test_a_straight_path_is_followed_exactly(solver, steps: int) -> None:
    g = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 4, 6, generator=g), torch.randn(2, 4, 6, generator=g)
    end = integrate(lambda x, t: noise - clean, noise, sampling_sigmas(steps), solver=solver)
    torch.testing.assert_close(end, clean, atol=1e-5, rtol=0)


def test_euler_matches_its_closed_form_and_heun_is_better() -> None:
    # dx/dsigma = x has the solution x(0) = x(1) / e; one Euler step multiplies by (1 + sigma' - sigma).
    steps = 20
    x = torch.ones(1, 1, dtype=torch.float64)
    ends = {s: integrate(lambda x, t: x, x, sampling_sigmas(steps), solver=s).item() for s in ("euler", "heun")}
    assert math.isclose(ends["euler"], (1 - 1 / steps) ** steps, rel_tol=1e-6)
    assert abs(ends["heun"] - math.exp(-1)) < 0.1 * abs(ends["euler"] - math.exp(-1))


def test_the_network_sees_whole_timesteps_only_when_asked() -> None:
    seen: dict[bool, list[float]] = {True: [], False: []}
    for truncate in seen:

        def velocity(x, t, truncate=truncate):
            seen[truncate].append(t[0].item())
            return torch.zeros_like(x)

        integrate(velocity, torch.zeros(2, 3), sampling_sigmas(30), truncate_timesteps=truncate)
    assert seen[True][:5] == [1000, 966, 933, 900, 866] and seen[True][-1] == 33
    assert math.isclose(seen[False][1], 1000 * 29 / 30, rel_tol=1e-6)


def test_guidance_interpolates_and_extrapolates() -> None:
    null, condition = torch.tensor([1.0]), torch.tensor([3.0])
    assert [guide(null, condition, s).item() for s in (0.0, 1.0, 3.0)] == [1.0, 3.0, 7.0]


def test_noise_belongs_to_its_generator() -> None:
    def generators(*seeds):
        return [torch.Generator().manual_seed(s) for s in seeds]

    both = sample_noise((3, 4), generators(5, 6))
    assert torch.equal(both[1], sample_noise((3, 4), generators(6))[0])
    assert not torch.equal(both[0], both[1])


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        sampling_sigmas(0)
    with pytest.raises(ConfigError, match="rk4"):
        integrate(lambda x, t: x, torch.zeros(1, 1), sampling_sigmas(2), solver="rk4")
    with pytest.raises(ShapeError, match="at least 2 levels"):
        integrate(lambda x, t: x, torch.zeros(1, 1), torch.ones(1))
