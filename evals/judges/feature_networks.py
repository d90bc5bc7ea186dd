"""The networks behind `evals.judges.features`: pictures already resized -> (features, logits or None).

Each maker returns a function of float32 (B, 3, S, S) in 0..255. Imports torch and torch-fidelity.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from evals.errors import JudgeError

Network = Callable[[Tensor], tuple[Tensor, Tensor | None]]

_INCEPTION_LAYERS = (
    "Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "MaxPool_2",
    "Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e", "Mixed_7a",
    "Mixed_7b", "Mixed_7c", "AvgPool",
)  # fmt: skip


def read_state(path: Path) -> dict[str, Tensor]:
    """Tensors of a .pth file, nothing executed. Raises JudgeError."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling and zip errors of many kinds
        raise JudgeError(f"{path}: is no weight file ({' '.join(str(error).split())[:100]})") from error
    if not isinstance(state, dict):
        raise JudgeError(f"{path}: holds no tensors by name")
    return state


class Inception(FeatureExtractorInceptionV3):
    """torch-fidelity's network, its weights read without executing anything, its own resize left to the caller."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        # The parent executes what its weight file says; it is handed a file in memory that holds tensors alone.
        buffer = io.BytesIO()
        torch.save(state, buffer)
        buffer.seek(0)
        super().__init__("inception-v3-compat", ["2048", "logits_unbiased"], buffer)

    def after_resize(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, 299, 299) in 0..255 -> features (B, 2048), logits without bias (B, 1008)."""
        x = (pictures - 128) / 128
        for name in _INCEPTION_LAYERS:
            x = getattr(self, name)(x)
        features = torch.flatten(x, 1)
        return features, features @ self.fc.weight.T


def inception(path: Path, device: str) -> Network:
    """Raises JudgeError for weights of another network."""
    try:
        net = Inception(read_state(path)).to(device)
    except (RuntimeError, KeyError) as error:
        raise JudgeError(
            f"{path}: is not the Inception of torch-fidelity ({str(error).splitlines()[0]})"
        ) from error
    return net.after_resize


def stickers(folder: Path, device: str) -> Network:
    """Raises JudgeError for weights that are missing or damaged."""
    from blip3o.errors import WeightsError
    from blip3o.stickers.feature_net import load

    try:
        net = load(folder).to(device)
    except WeightsError as error:
        raise JudgeError(str(error)) from error
    return lambda pictures: (net.features(pictures / 255), None)


# EfficientNet-Lite0: (expansion, kernel, stride, width) of its sixteen blocks. Source: the EfficientNet-Lite README of
# tensorflow/tpu; "lite" means no squeeze-and-excitation and ReLU6 in place of swish.
LITE0_BLOCKS = (
    (1, 3, 1, 16), (6, 3, 2, 24), (6, 3, 1, 24), (6, 5, 2, 40), (6, 5, 1, 40), (6, 3, 2, 80), (6, 3, 1, 80),
    (6, 3, 1, 80), (6, 5, 1, 112), (6, 5, 1, 112), (6, 5, 1, 112), (6, 5, 2, 192), (6, 5, 1, 192), (6, 5, 1, 192),
    (6, 5, 1, 192), (6, 3, 1, 320),
)  # fmt: skip


class _SameConv(nn.Conv2d):
    """TensorFlow's "SAME" padding: the odd pixel at the end."""

    def forward(self, x: Tensor) -> Tensor:
        pads = []
        for size, kernel, stride in zip(
            reversed(x.shape[-2:]), reversed(self.kernel_size), reversed(self.stride), strict=True
        ):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(F.pad(x, pads))


def _norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=1e-3)


class _LiteBlock(nn.Module):
    """Inverted residual; the names are those of the weight file."""

    def __init__(self, n_in: int, expansion: int, kernel: int, stride: int, n_out: int) -> None:
        super().__init__()
        wide = n_in * expansion
        self.is_residual = stride == 1 and n_in == n_out
        if expansion > 1:
            self._expand_conv = _SameConv(n_in, wide, 1, bias=False)
            self._bn0 = _norm(wide)
        self._depthwise_conv = _SameConv(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = _norm(wide)
        self._project_conv = _SameConv(wide, n_out, 1, bias=False)
        self._bn2 = _norm(n_out)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        if hasattr(self, "_expand_conv"):
            y = F.relu6(self._bn0(self._expand_conv(y)))
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.is_residual else y


class EfficientNetLite0(FeatureExtractorBase):
    """A torch-fidelity extractor with one feature, "1280": the pooled activations before the classifier.

    `torch_fidelity.register_feature_extractor("effnetlite0", EfficientNetLite0)` makes it known there; then
    ``feature_extractor_weights_path`` is required. It resizes nothing: give it pictures of 224 pixels, uint8 there.
    """

    def __init__(
        self,
        name: str = "effnetlite0",
        features_list: Any = ("1280",),
        feature_extractor_weights_path: str | None = None,
        **_: Any,
    ) -> None:
        super().__init__(name, list(features_list))
        self._conv_stem = _SameConv(3, 32, 3, 2, bias=False)
        self._bn0 = _norm(32)
        widths = [32, *(width for *_, width in LITE0_BLOCKS)]
        self._blocks = nn.ModuleList(
            _LiteBlock(n_in, *block) for n_in, block in zip(widths, LITE0_BLOCKS, strict=False)
        )
        self._conv_head = _SameConv(widths[-1], 1280, 1, bias=False)
        self._bn1 = _norm(1280)
        self._fc = nn.Linear(1280, 1000)
        if feature_extractor_weights_path is not None:
            self.load_state_dict(read_state(Path(feature_extractor_weights_path)))
        self.requires_grad_(False)
        self.eval()

    def features(self, pictures: Tensor) -> Tensor:
        """(B, 3, S, S) in 0..255 -> (B, 1280)."""
        x = F.relu6(self._bn0(self._conv_stem((pictures - 127) / 128)))
        for block in self._blocks:
            x = block(x)
        return F.relu6(self._bn1(self._conv_head(x))).mean(dim=(2, 3))

    def forward(self, pictures: Tensor) -> tuple[Tensor]:
        """As torch-fidelity calls it."""
        return (self.features(pictures.float()),)

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return ("1280",)

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return {"fid": "1280", "kid": "1280", "prc": "1280"}[metric]

    @staticmethod
    def can_be_compiled() -> bool:
        return False

    @staticmethod
    def get_dummy_input_for_compile() -> Tensor:
        return torch.zeros(1, 3, 224, 224, dtype=torch.uint8)


def effnetlite0(path: Path, device: str) -> Network:
    """Raises JudgeError for weights of another network."""
    try:
        net = EfficientNetLite0(feature_extractor_weights_path=str(path)).to(device)
    except RuntimeError as error:
        raise JudgeError(f"{path}: is no EfficientNet-Lite0 ({str(error).splitlines()[0]})") from error
    return lambda pictures: (net.features(pictures), None)
