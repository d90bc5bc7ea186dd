"""The network whose features compare sets of sticker pictures (KID and Frechet distance of `fid_stickers`).

A small classifier of its own: trained on the sticker world by `blip3o.stickers.feature_train`, it shares no weights
with a target encoder, a decoder or the sticker judge, so no model is measured by a part of itself. Its features are
the globally pooled activations before the heads. Pictures of other sizes are the caller's business.

B pictures, D features.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from blip3o.errors import WeightsError
from blip3o.stickers.feature_files import FOLDER, N_FEATURES, REPAIR, WEIGHTS, read_metadata
from blip3o.stickers.names import CLASSES, COLORS

MAX_OBJECTS = 4


class FeatureNet(nn.Module):
    """Four convolutions, then three linear heads: classes, colours, number of objects."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            *_block(3, 24, kernel=5, stride=2),  # (B, 24, 32, 32)
            *_block(24, 48, kernel=3, stride=2),  # (B, 48, 16, 16)
            *_block(48, 64, kernel=3, stride=2),  # (B, 64, 8, 8)
            *_block(64, N_FEATURES, kernel=1, stride=1),
        )
        self.classes = nn.Linear(N_FEATURES, len(CLASSES))
        self.colors = nn.Linear(N_FEATURES, len(COLORS))
        self.count = nn.Linear(N_FEATURES, MAX_OBJECTS)

    def features(self, pictures: Tensor) -> Tensor:
        """(B, 3, 64, 64) float in [0, 1] -> (B, D), not negative."""
        return self.trunk(pictures * 2 - 1).mean(dim=(2, 3))

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of classes, colours and the number of objects."""
        found = self.features(pictures)
        return self.classes(found), self.colors(found), self.count(found)


def _block(n_in: int, n_out: int, kernel: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU(),
    ]


def load(folder: Path = FOLDER) -> FeatureNet:
    """The trained network in float32 and evaluation mode. Raises WeightsError for missing or damaged files."""
    from safetensors.torch import load as load_tensors

    metadata, path = read_metadata(folder), folder / WEIGHTS
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror}); {REPAIR}") from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != metadata["sha256"]:
        raise WeightsError(
            f"{path} is damaged: sha256 {digest[:12]}, expected {metadata['sha256'][:12]}; {REPAIR}"
        )
    net = FeatureNet()
    state = {name: value.float() for name, value in load_tensors(data).items()}
    missing, strange = net.load_state_dict(state, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or strange:
        raise WeightsError(f"{path} has other tensors than this version's network; {REPAIR}")
    return net.eval().requires_grad_(False)


def to_tensor(pictures: Any) -> Tensor:
    """uint8 (B, H, W, 3) -> float (B, 3, H, W) in [0, 1]."""
    return torch.as_tensor(pictures).permute(0, 3, 1, 2).float().div(255)
