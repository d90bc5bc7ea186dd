"""What a target can show at best: held-out pictures through its encoder and decoder, judged like generated ones.

No generator can be better than its target's decoder. The figures stand beside each cell, so that a difference between
targets can be told from a difference between decoders.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from blip3o.decoder import PixelDecoder
from blip3o.stickers import SceneConfig, make_scene, render
from blip3o.stickers.judge import StickerJudge
from blip3o.stickers.judge_eval import Seen, measure
from blip3o.stickers.judge_files import FOLDER
from blip3o.train.autoencoder import psnr
from blip3o.train.world_data import to_pixels
from blip3o.vision.targets import Target

SPLIT = "test_seen"
KEPT = ("f1", "precision", "recall", "counts", "color")


@torch.no_grad()
def measure_ceiling(
    target: Target, decoder: PixelDecoder, world: SceneConfig, scenes: int, chunk: int = 32
) -> dict[str, Any]:
    """Judge's figures for reconstructions and for the pictures themselves, and PSNR in dB.

    ``f1``, ``precision``, ``recall``: objects of the right class in the right place; ``counts``: scenes with the right
    number of every class; ``color``: right colours of found objects; fractions 0 to 1.
    """
    judge = StickerJudge.load(FOLDER, "cpu")
    drawn_again: list[Seen] = []
    real: list[Seen] = []
    ratios = []
    for first in range(0, scenes, chunk):
        count = min(chunk, scenes - first)
        own = [make_scene(SPLIT, first + i, world) for i in range(count)]
        pictures = [render(scene) for scene in own]
        pixels = to_pixels([picture.image for picture in pictures])
        generators = [torch.Generator().manual_seed(first + i) for i in range(count)]
        made = decoder.decode(target(pixels).float(), generators=generators)
        ratios.append(count * psnr(made * 2 - 1, pixels))
        images = (made.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
        for group, shown in ((drawn_again, list(images)), (real, [p.image for p in pictures])):
            found = judge.find(shown)
            group += [Seen(s, p, f) for s, p, f in zip(own, pictures, found, strict=True)]
    return {
        "scenes": scenes,
        "split": SPLIT,
        "psnr_db": round(float(np.sum(ratios)) / scenes, 2),
        **{name: value for name, value in measure(drawn_again).items() if name in KEPT},
        "real": {name: value for name, value in measure(real).items() if name in KEPT},
    }
