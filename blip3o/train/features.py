"""The feature space of ``nano``'s target: tower tokens -> a few standardised channels, and what depends on it."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from blip3o.train.stages import clip_features, project_tokens


def half_whitening(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (C,) and matrix (C, C) such that ``(z - mean) @ matrix`` has uncorrelated channels of mean variance 1.

    Principal directions are divided by the square root of their standard deviation, not by all of it: main directions
    keep more of their weight in the generator's loss, noise directions are not blown up.
    """
    mean = samples.mean(0)
    covariance = torch.cov((samples - mean).T.double())
    variances, directions = torch.linalg.eigh(covariance)
    deviations = variances.clamp(min=1e-8).sqrt()
    matrix = directions / deviations.sqrt()
    return mean, (matrix / deviations.mean().sqrt()).float()


class TargetFeatures(nn.Module):
    """Pictures (B, 3, H, W) in [-1, 1] -> generation targets (B, C, h, w): tower, projection, half-whitening."""

    mean: Tensor
    matrix: Tensor

    def __init__(self, visual: nn.Module, projection: nn.Linear) -> None:
        super().__init__()
        self.visual, self.projection = visual, projection
        channels = projection.out_features
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("matrix", torch.eye(channels))

    @torch.no_grad()
    def fit(self, pixels: Tensor) -> None:
        z = torch.cat([self.channels(part) for part in pixels.split(256)])
        mean, matrix = half_whitening(z.movedim(1, -1).flatten(0, 2))
        self.mean.copy_(mean)
        self.matrix.copy_(matrix)

    def channels(self, pixels: Tensor) -> Tensor:
        return project_tokens(clip_features(self.visual, pixels)[1], self.projection)

    def forward(self, pixels: Tensor) -> Tensor:
        z = self.channels(pixels).movedim(1, -1).float()
        return ((z - self.mean) @ self.matrix).movedim(-1, 1).contiguous()

    def affine(self) -> tuple[Tensor, Tensor]:
        """weight (C, width) and bias (C,) of the whole map from layer-normalised tokens to features."""
        weight = self.matrix.T @ self.projection.weight
        return weight, (self.projection.bias - self.mean) @ self.matrix


@torch.no_grad()
def fold_into_decoder(conv: nn.Conv2d, first: int, mean: Tensor, matrix: Tensor) -> None:
    """Rewrite a decoder's first convolution for whitened features: same output as before on the unwhitened ones,
    exactly so but for the picture's border, where the padding holds zeros of the new space."""
    z_weight = conv.weight[:, first:].clone()  # (out, C, 3, 3)
    conv.weight[:, first:] = torch.einsum("ocij,fc->ofij", z_weight, torch.linalg.inv(matrix))
    conv.bias += torch.einsum("ocij,c->o", z_weight, mean)
