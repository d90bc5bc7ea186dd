"""Integration from noise to data, and classifier-free guidance.

Everything here is a function of tensors; noise and the velocity function come from outside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from blip3o.errors import ConfigError, ShapeError
from blip3o.flow.path import sigma_to_timestep

Solver = Literal["euler", "heun"]
VelocityFunction = Callable[[Tensor, Tensor], Tensor]  # (x (B, ...), timestep (B,)) -> velocity
# (step, timestep () in 0..1000, x after the step) -> the x to go on with, or None to end here with this x
AfterStep = Callable[[int, Tensor, Tensor], Tensor | None]


def sampling_sigmas(num_inference_steps: int, shift: float = 1.0) -> Tensor:
    """Noise levels ``linspace(1, 1/n, n)``, shifted, then 0: float32 (n + 1,).

    The values equal those of diffusers' FlowMatchEulerDiscreteScheduler fed with that linspace.
    """
    if num_inference_steps < 1:
        raise ConfigError(f"num_inference_steps must be at least 1, got {num_inference_steps}")
    # The shift is applied in float32, as diffusers does: truncated timesteps depend on the last bit.
    sigmas = np.linspace(1.0, 1 / num_inference_steps, num_inference_steps).astype(np.float32)
    if shift != 1.0:
        sigmas = shift * sigmas / (1 + (shift - 1) * sigmas)
    return torch.cat([torch.from_numpy(sigmas), torch.zeros(1)])


def sample_noise(
    shape: Sequence[int], generators: Sequence[torch.Generator], dtype: torch.dtype = torch.float32
) -> Tensor:
    """One draw of N(0, 1) noise per generator, on the CPU: (len(generators), *shape).

    The generators live on the CPU and each serves one sample, so that a seed means the same noise on
    any device and at any batch size. Raises: ConfigError for a generator of another device.
    """
    for generator in generators:
        if generator.device.type != "cpu":
            raise ConfigError(
                f"noise is drawn on the CPU, got a generator on {generator.device}; "
                "use torch.Generator('cpu').manual_seed(seed)"
            )
    draws = [torch.randn(tuple(shape), generator=g, dtype=torch.float32) for g in generators]
    return torch.stack(draws).to(dtype)


def guide(velocity_null: Tensor, velocity_condition: Tensor, guidance_scale: float) -> Tensor:
    """Classifier-free guidance: ``null + scale * (condition - null)``."""
    return velocity_null + guidance_scale * (velocity_condition - velocity_null)


def integrate(
    velocity_function: VelocityFunction,
    noise: Tensor,
    sigmas: Tensor,
    *,
    solver: Solver = "euler",
    truncate_timesteps: bool = False,
    on_step: Callable[[int, Tensor, Tensor], None] | None = None,
    after_step: AfterStep | None = None,
) -> Tensor:
    """Integrate dx/dsigma = velocity along ``sigmas`` from noise (first) to data (last).

    Args: velocity_function: x (B, ...), timestep (B,) -> velocity like x. noise (B, ...). sigmas (n + 1,),
        falling. truncate_timesteps: show the network whole timesteps, as the released inference code
        does. on_step: called as (step, x before the step, velocity) for inspection. after_step: sees x after
        each step and may replace it or end the integration.

    A velocity in half precision is integrated as diffusers' scheduler does it: the sum in float32, the
    result in the velocity's precision.
    """
    if sigmas.ndim != 1 or len(sigmas) < 2:
        raise ShapeError(
            f"sigmas must be a list of at least 2 levels, got shape {tuple(sigmas.shape)}"
        )
    if solver not in ("euler", "heun"):
        raise ConfigError(f"solver {solver!r} is unknown; choose euler or heun")

    def evaluate(x: Tensor, sigma: Tensor) -> Tensor:
        timestep = sigma_to_timestep(sigma)
        if truncate_timesteps:
            timestep = timestep.long()
        return velocity_function(x, timestep.to(x.device).expand(len(x)))

    x = noise
    for step in range(len(sigmas) - 1):
        sigma, sigma_next = sigmas[step], sigmas[step + 1]
        delta = sigma_next - sigma
        velocity = evaluate(x, sigma)
        if on_step is not None:
            on_step(step, x, velocity)
        stepped = (x.float() + delta * velocity).to(velocity.dtype)
        # The last step of Heun would need the velocity at sigma = 0, where there is nothing to correct.
        if solver == "heun" and sigma_next > 0:
            mean = 0.5 * (velocity + evaluate(stepped, sigma_next))
            stepped = (x.float() + delta * mean).to(velocity.dtype)
        x = stepped
        if after_step is not None:
            changed = after_step(step, sigma_to_timestep(sigma), x)
            if changed is None:
                break
            x = changed
    return x
