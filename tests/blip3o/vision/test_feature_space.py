"""Standardised latents: unit variance, inversion, agreement with scikit-learn."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn

from blip3o.errors import ConfigError, ShapeError
from blip3o.vision.feature_space import FeatureSpace


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:
    """Correlated channels with different means and scales: (60, 12, 4, 4)."""
    g = torch.Generator().manual_seed(0)
    mix = torch.randn(12, 12, generator=g) * torch.linspace(0.1, 2, 12)
    return (torch.randn(60, 4, 4, 12, generator=g) @ mix + torch.linspace(-3, 3, 12)).movedim(-1, 1)


def test_directions_are_the_principal_ones(tokens) -> None:
    rows = tokens.movedim(1, -1).flatten(0, 2)
    expected = PCA(5, whiten=True).fit(rows.numpy()).transform(rows.numpy())
    latents = FeatureSpace.fit(tokens, 5)(tokens).movedim(1, -1).flatten(0, 2)
    for column in range(5):  # up to the sign
        ours, theirs = latents[:, column], torch.from_numpy(expected[:, column]).float()
        torch.testing.assert_close(ours.abs(), theirs.abs(), atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("whitening", [0.0, 0.5, 1.0])
def test_all_directions_invert_and_have_unit_mean_variance(tokens, whitening: float) -> None:
    space = FeatureSpace.fit(tokens, 12, whitening=whitening)
    latents = space(tokens)
    assert latents.mean(dim=(0, 2, 3)).abs().max() < 1e-4
    assert latents.var(dim=(0, 2, 3)).mean().item() == pytest.approx(1, abs=0.01)
    torch.testing.assert_close(space.invert(latents), tokens, atol=1e-3, rtol=1e-3)


def test_dropped_directions_cost_what_they_hold(tokens) -> None:
    errors = [(s.invert(s(tokens)) - tokens).square().mean() for s in (FeatureSpace.fit(tokens, c) for c in (3, 6, 12))]
    assert errors[0] > errors[1] > errors[2]


def test_a_learned_projection_is_standardised(tokens) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(12, 4)
    latents = FeatureSpace.from_linear(linear, tokens, layer_norm=True)(tokens)
    assert latents.mean(dim=(0, 2, 3)).abs().max() < 1e-4
    torch.testing.assert_close(latents.std(dim=(0, 2, 3)), torch.ones(4), atol=1e-3, rtol=0)


def test_saved_is_loaded(tokens, tmp_path: Path) -> None:
    space = FeatureSpace.fit(tokens, 4, layer_norm=True)
    space.save_pretrained(tmp_path)
    assert torch.equal(FeatureSpace.from_pretrained(tmp_path)(tokens), space(tokens))


def test_impossible_sizes_are_refused(tokens) -> None:
    with pytest.raises(ConfigError, match="between 1 and the encoder's width 12, got 13"):
        FeatureSpace.fit(tokens, 13)
    with pytest.raises(ShapeError, match=r"\(batch, 12, height, width\)"):
        FeatureSpace.fit(tokens, 4)(tokens[:, :3])
