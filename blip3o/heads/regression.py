"""Regression: features straight from the condition, under mean squared error (the CLIP + MSE design).

Nothing is drawn, so a prompt has one answer: the mean of what the data allow.
Dimension letters: B batch, Q condition tokens, H hidden size, C channels, h and w feature grid, p patch side.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from blip3o.dit import DiT, DiTConfig
from blip3o.errors import ConfigError, ShapeError
from blip3o.flow.loss import feature_loss
from blip3o.heads.base import Draws, GenerationOutput, SampleSettings


class Regressor(Protocol):
    """Condition (B, Q, H) -> features (B, C, h, w) in one forward."""

    feature_shape: tuple[int, int, int]

    @property
    def dtype(self) -> torch.dtype: ...

    def __call__(self, condition: Tensor) -> Tensor: ...


class LinearRegressor(nn.Module):
    """One linear map from each query's state to one patch of features, as in the paper (arXiv:2505.09568).

    Query k makes patch k, row by row; so there must be as many queries as patches. Raises: ConfigError.
    """

    def __init__(self, config: DiTConfig, num_queries: int) -> None:
        super().__init__()
        if num_queries != config.num_tokens:
            raise ConfigError(
                f"a linear head maps each query to one patch of features: num_queries {num_queries} must equal the "
                f"{config.num_tokens} patches of a {config.input_size} x {config.input_size} grid "
                f"(patch_size {config.patch_size})"
            )
        self.config = config
        self.feature_shape = (config.in_channels, config.input_size, config.input_size)
        self.proj = nn.Linear(config.condition_dim, config.in_channels * config.patch_size**2)

    @property
    def dtype(self) -> torch.dtype:
        return self.proj.weight.dtype

    def forward(self, condition: Tensor) -> Tensor:
        """(B, Q, H) -> (B, C, h, w). Raises: ShapeError."""
        config = self.config
        if condition.shape[1:] != (config.num_tokens, config.condition_dim):
            raise ShapeError(
                f"condition must be (batch, {config.num_tokens}, {config.condition_dim}), got {tuple(condition.shape)}"
            )
        p, side = config.patch_size, config.input_size // config.patch_size
        rows = self.proj(condition).unflatten(1, (side, side)).unflatten(3, (p, p, -1))
        return rows.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


class DiTRegressor:
    """The same transformer as under flow matching, without noise: zeros in, timestep 0, features out.

    It isolates the loss: both designs have one network of one size.
    """

    def __init__(self, dit: DiT) -> None:
        self.dit, self.feature_shape = dit, dit.feature_shape

    @property
    def dtype(self) -> torch.dtype:
        return self.dit.dtype

    def __call__(self, condition: Tensor) -> Tensor:
        nothing = condition.new_zeros(len(condition), *self.feature_shape)
        return self.dit(nothing, condition.new_zeros(len(condition)), condition)


class RegressionHead:
    """Features by mean squared error; the condition is never dropped, for there is no guidance."""

    def __init__(self, network: Regressor) -> None:
        self.network, self.feature_shape = network, network.feature_shape

    def loss(self, condition: Tensor, target: Tensor, draws: Draws) -> GenerationOutput:
        """Mean squared error of the features; ``draws`` has nothing to decide."""
        prediction = self.network(condition.to(self.network.dtype))
        return GenerationOutput(feature_loss(prediction, target), prediction, target, condition)

    def sample(self, condition: Tensor, settings: SampleSettings) -> Tensor:
        """The one answer to each condition, whatever the generators. Raises: ConfigError for flow settings."""
        for name, value, neutral in (
            ("num_inference_steps", settings.num_inference_steps, 1),
            ("guidance_scale", settings.guidance_scale, 1.0),
        ):
            if value not in (None, neutral):
                raise ConfigError(
                    f"a regression head answers in one step and without guidance, got {name} {value}; leave it out"
                )
        return self.network(condition.to(self.network.dtype)).float()
