"""Colour of an object read from its pixels alone: no network, so no training can bias it.

Each of the ten tints is a ramp from dark over middle to light (`tint.RAMPS`). An object has the colour whose ramp its
pixels lie nearest to, by mean distance in L*a*b*.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from blip3o.stickers.names import COLORS
from blip3o.stickers.tint import TABLES, lab

FAR = 40.0  # L*a*b* distances are capped, so that eyes, wheels and outlines do not outvote the body
_BITS = 5


@lru_cache(maxsize=1)
def _distances() -> Tensor:
    """(2**15, 10) float32: capped distance of each colour, cut to 5 bits a channel, to each ramp."""
    n = 1 << _BITS
    level = (np.arange(n) + 0.5) * (256 / n)
    rgb = np.stack(np.meshgrid(level, level, level, indexing="ij"), -1).reshape(-1, 3)
    cube = lab(rgb).astype(np.float32)
    columns = []
    for color in COLORS:
        ramp = lab(TABLES[color][8:248:16]).astype(
            np.float32
        )  # the ends of a ramp are rare and look alike
        columns.append(np.sqrt(((cube[:, None] - ramp) ** 2).sum(-1)).min(1))
    return torch.from_numpy(np.minimum(np.stack(columns, -1), FAR))


def ramp_distances(pictures: Tensor, masks: Tensor) -> Tensor:
    """Mean distance of each object's pixels to each tint.

    Args: pictures (N, 3, H, W) in [0, 1], one per object; masks (N, H, W) bool. The outermost pixel of a mask mixes
    with the background and is left out, unless nothing else is there. Returns (N, 10), FAR for an empty mask.
    """
    inner = ~F.max_pool2d((~masks).float()[:, None], 3, 1, 1)[:, 0].bool()
    use = torch.where(inner.flatten(1).sum(1)[:, None, None] >= 8, inner, masks)
    levels = (pictures.clamp(0, 1) * 255).to(torch.int64) >> (8 - _BITS)
    codes = (levels[:, 0] << (2 * _BITS)) | (levels[:, 1] << _BITS) | levels[:, 2]
    index, y, x = use.nonzero(as_tuple=True)
    table = _distances().to(pictures.device)
    sums = torch.zeros(len(masks), len(COLORS), device=pictures.device)
    sums.index_add_(0, index, table[codes[index, y, x]])
    counts = use.flatten(1).sum(1)
    return torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], FAR)
