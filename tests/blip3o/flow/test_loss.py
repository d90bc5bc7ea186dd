"""Losses: plain means in float32, with and without a mask."""

from __future__ import annotations

import pytest
import torch

from blip3o.errors import ShapeError
from blip3o.flow.loss import velocity_loss


def test_a_mask_takes_the_mean_over_what_counts() -> None:
    prediction, target = torch.zeros(3, 2), torch.tensor([[1.0, 1.0], [2.0, 2.0], [5.0, 5.0]])
    assert velocity_loss(prediction, target).item() == 10.0
    assert velocity_loss(prediction, target, torch.tensor([1, 1, 0])).item() == 2.5
    assert velocity_loss(prediction, target, torch.zeros(3)).item() == 0.0


def test_half_precision_is_summed_in_float32() -> None:
    prediction = torch.full((70000,), 2.0, dtype=torch.float16)
    assert velocity_loss(prediction, torch.zeros_like(prediction)).item() == 4.0
    assert velocity_loss(prediction, torch.zeros_like(prediction)).dtype == torch.float32


def test_shapes_that_disagree_are_refused() -> None:
    with pytest.raises(ShapeError, match="one shape"):
        velocity_loss(torch.zeros(2, 3), torch.zeros(2, 1))
