"""The feature space of a learned projection, and the decoder rewritten for it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from blip3o.train.features import fold_into_decoder, learned_space
from blip3o.vision.encoders import OpenClipEncoder


@pytest.fixture(scope="module")
def parts():
    torch.manual_seed(0)
    config = {
        "embed_dim": 16,
        "vision_cfg": {
            "image_size": 16,
            "patch_size": 4,
            "width": 32,
            "layers": 2,
            "head_width": 16,
        },
    }
    encoder, projection = OpenClipEncoder.from_config(config).eval(), nn.Linear(32, 6)
    pixels = torch.randn(64, 3, 16, 16)
    return encoder, projection, pixels, *learned_space(encoder, projection, pixels)


def test_latents_are_uncorrelated_and_have_mean_variance_one(parts):
    encoder, _, pixels, space, _ = parts
    with torch.no_grad():
        rows = space(encoder(pixels)).movedim(1, -1).flatten(0, 2)
    covariance = torch.cov(rows.T)
    off_diagonal = covariance - torch.diag(covariance.diagonal())
    assert off_diagonal.abs().max() < 1e-2
    assert covariance.diagonal().mean() == pytest.approx(1.0, abs=1e-2)


def test_one_matrix_equals_projection_then_whitening(parts):
    encoder, projection, pixels, space, inner = parts
    with torch.no_grad():
        tokens = encoder(pixels)
        projected = projection(F.layer_norm(tokens.movedim(1, -1), (32,))).movedim(-1, 1)
        assert torch.allclose(space(tokens), inner(projected), atol=1e-4)


def test_the_rewritten_convolution_gives_the_same_output_inside_the_picture(parts):
    encoder, projection, pixels, space, inner = parts
    conv = nn.Conv2d(3 + 6, 5, 3, padding=1)
    with torch.no_grad():
        tokens = encoder(pixels)
        projected = projection(F.layer_norm(tokens.movedim(1, -1), (32,))).movedim(-1, 1)
        picture = torch.randn(64, 3, 4, 4)
        before = conv(torch.cat([picture, projected], dim=1))
        fold_into_decoder(conv, 3, inner)
        after = conv(torch.cat([picture, space(tokens)], dim=1))
    assert torch.allclose(before[..., 1:-1, 1:-1], after[..., 1:-1, 1:-1], atol=1e-3)
