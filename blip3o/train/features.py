"""Target features in training: those of ``nano`` (tower, learned projection, statistics), and a check of any."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from blip3o.vision.encoders import OpenClipEncoder
from blip3o.vision.feature_space import FeatureSpace


class TargetFeatures(nn.Module):
    """Pictures (B, 3, S, S) in [-1, 1] -> standardised generation targets (B, C, h, w)."""

    def __init__(self, encoder: OpenClipEncoder, space: FeatureSpace) -> None:
        super().__init__()
        self.encoder, self.space = encoder, space

    def forward(self, pixels: Tensor) -> Tensor:
        return self.space(self.encoder(pixels))


@torch.no_grad()
def learned_space(
    encoder: OpenClipEncoder, projection: nn.Linear, pixels: Tensor
) -> tuple[FeatureSpace, FeatureSpace]:
    """Feature space of a learned projection, and its inner part alone (projected channels -> latents).

    The projection's outputs are turned to their principal directions and half-whitened: each is divided by the square
    root of its standard deviation, so that main directions keep more weight in the generator's loss and noise
    directions are not blown up. Everything is linear after the token norm, so one matrix holds it.
    """
    tokens = torch.cat([encoder(part) for part in pixels.split(256)])
    width, channels = projection.in_features, projection.out_features
    plain = FeatureSpace(width, channels, layer_norm=True)
    plain.projection.copy_(projection.weight)
    plain.offset.copy_(-projection.bias)
    inner = FeatureSpace.fit(plain(tokens), channels, whitening=0.5)
    space = FeatureSpace(width, channels, layer_norm=True)
    space.projection.copy_(inner.projection @ projection.weight)
    space.offset.copy_(inner.projection @ (inner.center - projection.bias) + inner.offset)
    space.scale.copy_(inner.scale)
    return space, inner


@torch.no_grad()
def fold_into_decoder(conv: nn.Conv2d, first: int, inner: FeatureSpace) -> None:
    """Rewrite a decoder's first convolution, trained on projected channels from input ``first`` on, for the latents
    that ``inner`` makes of them. The same output as before but at the picture's border, where the padding's zeros now
    stand for the mean."""
    weight = conv.weight[:, first:].clone()  # (out, C, 3, 3)
    to_channels = (
        torch.linalg.inv(inner.projection) * inner.scale
    )  # channels = to_channels @ latents + shift
    shift = torch.linalg.inv(inner.projection) @ inner.offset + inner.center
    conv.weight[:, first:] = torch.einsum("ocij,cf->ofij", weight, to_channels)
    assert conv.bias is not None
    conv.bias += torch.einsum("ocij,c->o", weight, shift)


def unusual_scale(features: Tensor) -> str | None:
    """A warning where target features are much smaller or larger than the noise of sd 1 that hides them: at an sd of
    0.05 eight pairs were not learned by heart in 400 steps, scaled to 1 they were."""
    sd = features.float().std().item()
    if 0.2 <= sd <= 5:
        return None
    return (
        f"target features have a standard deviation of {sd:.3g}, the noise of flow matching has 1, so little of them "
        "is learned: fit a feature space, or set scaling_factor (and shift_factor) in the VAE's config.json"
    )
