"""Flow matching: a network that predicts the velocity from noise to features.

Dimension letters: B batch, Q condition tokens, H hidden size, C channels, h and w feature grid.
"""

from __future__ import annotations

import torch
from torch import Tensor

from blip3o.config import FlowConfig
from blip3o.errors import ConfigError, ShapeError
from blip3o.flow.loss import velocity_loss
from blip3o.flow.path import interpolate, sigma_to_timestep
from blip3o.flow.sampler import guide, integrate, sample_noise, sampling_sigmas
from blip3o.flow.timesteps import sigma_from_uniform
from blip3o.heads.base import Draws, FlowNetwork, GenerationOutput, SampleSettings


class FlowHead:
    """Drives a velocity network in training and in sampling.

    Args: is_released: repeat the released inference code: whole-number timesteps, and guidance and steps in the
        network's precision; else they run in float32.
    """

    def __init__(self, network: FlowNetwork, flow: FlowConfig, is_released: bool = False) -> None:
        self.network, self.flow, self.is_released = network, flow, is_released
        self.feature_shape = network.feature_shape

    def loss(self, condition: Tensor, target: Tensor, draws: Draws) -> GenerationOutput:
        """Mean squared error of the velocity at random noise levels; see GenerationHead."""
        batch, flow = len(target), self.flow
        u, noise, drop = draws.u, draws.noise, draws.drop
        if u is None:
            u = torch.rand(batch, generator=draws.generator)
        if noise is None:
            noise = torch.randn(target.shape, generator=draws.generator)
        if drop is None:
            drop = torch.rand(batch, generator=draws.generator) < flow.condition_dropout
        sigma = sigma_from_uniform(u.to(target.device), flow.distribution)
        point = interpolate(target, noise.to(target), sigma)
        condition = condition * (1 - drop.to(condition))[:, None, None]
        timestep, dtype = sigma_to_timestep(point.sigma), self.network.dtype
        prediction = self.network(point.x_sigma.to(dtype), timestep, condition.to(dtype))
        return GenerationOutput(
            loss=velocity_loss(prediction, point.velocity),
            prediction=prediction,
            wanted=point.velocity,
            condition=condition,
            x_sigma=point.x_sigma,
            timestep=timestep,
        )

    def sample(self, condition: Tensor, settings: SampleSettings) -> Tensor:
        """Integrate from noise to features.

        Both halves of classifier-free guidance go through the network in one forward; the condition without a
        prompt is all zeros. ``on_step`` is called as (step, x, velocity of both halves (2B, ...) or (B, ...)
        without guidance); ``after_step``: see ``integrate``. Raises: ConfigError, ShapeError.
        """
        flow, network = self.flow, self.network
        steps, scale = settings.num_inference_steps, settings.guidance_scale
        steps = flow.num_inference_steps if steps is None else steps
        scale = flow.guidance_scale if scale is None else scale
        noise = self._noise(len(condition), settings)
        dtype, is_guided = network.dtype, scale != 1.0
        working = dtype if self.is_released else torch.float32
        condition = condition.to(dtype)
        encoded = (network.encode_guided if is_guided else network.encode_condition)(condition)
        current: list[Tensor] = []  # the network's own output at this step, for on_step

        def velocity(x: Tensor, timestep: Tensor) -> Tensor:
            x = x.to(dtype)
            if is_guided:
                x, timestep = torch.cat([x, x]), torch.cat([timestep, timestep])
            current[:] = [network(x, timestep, encoded).to(working)]
            if not is_guided:
                return current[0]
            null, conditioned = current[0].chunk(2)
            return guide(null, conditioned, scale)

        on_step = settings.on_step
        features = integrate(
            velocity,
            noise.to(condition.device, working),
            sampling_sigmas(steps, flow.sampling_shift),
            solver=settings.solver,
            truncate_timesteps=self.is_released,
            on_step=None if on_step is None else lambda step, x, _: on_step(step, x, current[0]),
            after_step=settings.after_step,
        )
        return features.float()

    def _noise(self, batch: int, settings: SampleSettings) -> Tensor:
        noise = settings.noise
        if noise is None:
            if settings.generators is None:
                raise ConfigError("sampling needs noise, or one torch.Generator per sample")
            noise = sample_noise(self.feature_shape, settings.generators)
        if noise.shape != (batch, *self.feature_shape):
            raise ShapeError(
                f"noise must be ({batch}, {', '.join(map(str, self.feature_shape))}), got {tuple(noise.shape)}; "
                "one generator per condition"
            )
        return noise
