"""Training losses of the generation head, in float32, without weighting over time."""

from __future__ import annotations

from torch import Tensor

from blip3o.errors import ShapeError


def mean_squared_error(prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean squared error over all elements, in float32 (float64 if the prediction is).

    Args: prediction, target: (B, ...). mask: (B,) or broadcastable to the prediction, 1 where an
        element counts; the mean is over the elements that count. Raises: ShapeError.
    """
    if prediction.shape != target.shape:
        raise ShapeError(
            f"prediction and target must have one shape, got {tuple(prediction.shape)} and {tuple(target.shape)}"
        )
    dtype = prediction.dtype if prediction.dtype.itemsize > 4 else None
    prediction = prediction if dtype else prediction.float()
    error = (prediction - target.to(prediction.dtype)).square()
    if mask is None:
        return error.mean()
    if mask.ndim == 1:
        mask = mask.reshape(-1, *([1] * (error.ndim - 1)))
    weight = mask.to(error.dtype).expand_as(error)
    return (error * weight).sum() / weight.sum().clamp(min=1)


def velocity_loss(prediction: Tensor, velocity: Tensor, mask: Tensor | None = None) -> Tensor:
    """Flow matching: error of the predicted velocity (arXiv:2210.02747)."""
    return mean_squared_error(prediction, velocity, mask)


def feature_loss(prediction: Tensor, features: Tensor, mask: Tensor | None = None) -> Tensor:
    """The CLIP + MSE ablation: error of features that are regressed directly."""
    return mean_squared_error(prediction, features, mask)
