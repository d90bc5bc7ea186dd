"""The straight path between data and noise; the one home of the time convention.

``sigma`` runs from 1 (noise) to 0 (data), as in diffusers and in the released weights:
``x_sigma = (1 - sigma) * clean + sigma * noise``, velocity ``noise - clean``, and the network sees
``timestep = 1000 * sigma``. The BLIP3-o paper writes the same path with ``t = 1 - sigma`` (t = 1 is
data) and the velocity of opposite sign.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from blip3o.errors import ShapeError

NUM_TRAIN_TIMESTEPS = 1000


class PathSample(NamedTuple):
    """A point on the path, the velocity there, and its sigma (B,)."""

    x_sigma: Tensor
    velocity: Tensor
    sigma: Tensor


def _per_sample(sigma: Tensor, like: Tensor) -> Tensor:
    """sigma (B,) shaped to broadcast over the trailing dimensions of ``like``."""
    if sigma.ndim != 1 or sigma.shape[0] != like.shape[0]:
        raise ShapeError(f"sigma must be ({like.shape[0]},), got {tuple(sigma.shape)}")
    return sigma.to(like.dtype).reshape(-1, *([1] * (like.ndim - 1)))


def interpolate(clean: Tensor, noise: Tensor, sigma: Tensor) -> PathSample:
    """Point on the straight path from clean features (sigma = 0) to noise (sigma = 1), with its velocity.

    Args: clean, noise: (B, ...), same shape and dtype. sigma: (B,), in [0, 1].
    Raises: ShapeError if the shapes disagree.  Source: arXiv:2210.02747, optimal-transport path.
    """
    if clean.shape != noise.shape:
        raise ShapeError(
            f"clean and noise must have one shape, got {tuple(clean.shape)} and {tuple(noise.shape)}"
        )
    s = _per_sample(sigma, clean)
    return PathSample((1 - s) * clean + s * noise, noise - clean, sigma)


def velocity_to_clean(x_sigma: Tensor, velocity: Tensor, sigma: Tensor) -> Tensor:
    """The data end of the path through ``x_sigma`` with this velocity."""
    return x_sigma - _per_sample(sigma, x_sigma) * velocity


def velocity_to_noise(x_sigma: Tensor, velocity: Tensor, sigma: Tensor) -> Tensor:
    """The noise end of the path through ``x_sigma`` with this velocity."""
    return x_sigma + (1 - _per_sample(sigma, x_sigma)) * velocity


def clean_to_velocity(x_sigma: Tensor, clean: Tensor, sigma: Tensor) -> Tensor:
    """The velocity at ``x_sigma`` of the path that ends in ``clean``; sigma must not be 0."""
    return (x_sigma - clean) / _per_sample(sigma, x_sigma)


def noise_to_velocity(x_sigma: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """The velocity at ``x_sigma`` of the path that starts in ``noise``; sigma must not be 1."""
    return (noise - x_sigma) / (1 - _per_sample(sigma, x_sigma))


def sigma_to_timestep(sigma: Tensor) -> Tensor:
    """What the network sees: 1000 at noise, 0 at data."""
    return sigma * NUM_TRAIN_TIMESTEPS


def timestep_to_sigma(timestep: Tensor) -> Tensor:
    return timestep / NUM_TRAIN_TIMESTEPS
