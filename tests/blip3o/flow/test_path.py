"""The straight path: ends, conversions and refusals."""

from __future__ import annotations

import pytest
import torch

from blip3o.errors import ShapeError
from blip3o.flow import path


@pytest.fixture
def ends() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(5, 3, 4, 4, generator=g, dtype=torch.float64) for _ in range(2))
    return clean, noise, torch.tensor([0.05, 0.3, 0.5, 0.9, 0.999], dtype=torch.float64)


def test_sigma_0_is_data_and_1_is_noise(ends) -> None:
    clean, noise, _ = ends
    assert torch.equal(path.interpolate(clean, noise, torch.zeros(5)).x_sigma, clean)
    assert torch.equal(path.interpolate(clean, noise, torch.ones(5)).x_sigma, noise)


def test_velocity_is_the_derivative_of_the_path(ends) -> None:
    clean, noise, sigma = ends
    step = 1e-6
    ahead = path.interpolate(clean, noise, sigma + step).x_sigma
    point = path.interpolate(clean, noise, sigma)
    torch.testing.assert_close((ahead - point.x_sigma) / step, point.velocity, atol=1e-8, rtol=1e-6)


def test_conversions_return_to_where_they_came_from(ends) -> None:
    clean, noise, sigma = ends
    x, velocity, _ = path.interpolate(clean, noise, sigma)
    exact = {"atol": 1e-12, "rtol": 0}
    torch.testing.assert_close(path.velocity_to_clean(x, velocity, sigma), clean, **exact)
    torch.testing.assert_close(path.velocity_to_noise(x, velocity, sigma), noise, **exact)
    torch.testing.assert_close(path.clean_to_velocity(x, clean, sigma), velocity, **exact)
    torch.testing.assert_close(
        path.noise_to_velocity(x, noise, sigma), velocity, atol=1e-10, rtol=0
    )
    torch.testing.assert_close(
        path.timestep_to_sigma(path.sigma_to_timestep(sigma)), sigma, **exact
    )


def test_shapes_that_disagree_are_refused(ends) -> None:
    clean, noise, sigma = ends
    with pytest.raises(ShapeError, match="one shape"):
        path.interpolate(clean, noise[:, :2], sigma)
    with pytest.raises(ShapeError, match=r"sigma must be \(5,\)"):
        path.interpolate(clean, noise, sigma[:2])
