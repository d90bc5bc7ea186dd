"""Training of the sticker features: classes, colours and number of objects in scenes of the sticker world.

    python -m blip3o.stickers.feature_train --output runs/sticker-features --minutes 5

Scenes are drawn as they are needed (split "judge", numbers that the judge's own training does not reach), half of them
worn as the judge's are, since the features have to say something about soft and speckled pictures, too. Time is CPU
time of this process; the shipped files name theirs. The last two fifths of it lower the learning rate to zero.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from blip3o.stickers import CLASSES, COLORS, Scene, SceneConfig, make_scene, render
from blip3o.stickers.feature_files import METADATA, VERSION, WEIGHTS
from blip3o.stickers.feature_net import FeatureNet, load, to_tensor
from blip3o.stickers.judge_data import WearConfig, wear

FIRST_SCENE = 1_000_000_000
LEVELS = ("easy", "full")
CLASS_INDEX = {name: i for i, name in enumerate(CLASSES)}
COLOR_INDEX = {name: i for i, name in enumerate(COLORS)}


@dataclass(frozen=True)
class Labels:
    """classes (B, 80) and colors (B, 10): shares that sum to 1, colors all zero where none is named; count (B,)."""

    classes: Tensor
    colors: Tensor
    count: Tensor


def labels_of(scenes: list[Scene]) -> Labels:
    """What the scenes show, as targets."""
    classes = torch.zeros(len(scenes), len(CLASSES))
    colors = torch.zeros(len(scenes), len(COLORS))
    for row, scene in enumerate(scenes):
        for sticker in scene.stickers:
            classes[row, CLASS_INDEX[sticker.class_name]] += 1
            if sticker.color is not None:
                colors[row, COLOR_INDEX[sticker.color]] += 1
    count = torch.tensor([len(scene.stickers) for scene in scenes]) - 1
    return Labels(
        classes / classes.sum(1, keepdim=True), colors / colors.sum(1, keepdim=True).clamp_min(1), count
    )


def loss(net: FeatureNet, pictures: Tensor, labels: Labels) -> Tensor:
    """Cross entropies of the three heads; colours where some are named."""
    classes, colors, count = net(pictures)
    named = labels.colors.sum(1)
    color_loss = -(labels.colors * F.log_softmax(colors, 1)).sum(1).sum() / named.sum().clamp_min(1)
    return F.cross_entropy(classes, labels.classes) + color_loss + F.cross_entropy(count, labels.count)


def batch(first: int, size: int, worlds: list[SceneConfig], seed: int) -> tuple[Tensor, Labels]:
    """Scenes ``first``, ``first + 1``, ... in turn from the worlds, every second pair worn."""
    scenes = [make_scene("judge", first + k, worlds[k % len(worlds)]) for k in range(size)]
    pictures = to_tensor(np.stack([render(scene).image for scene in scenes]))
    rng = np.random.default_rng((seed, first))
    is_worn = torch.arange(size) % 4 >= 2
    pictures[is_worn] = wear(pictures[is_worn], rng, WearConfig())
    return pictures, labels_of(scenes)


@torch.no_grad()
def accuracy(net: FeatureNet, split: str, level: str, n: int) -> dict[str, float]:
    """Share of right answers on scenes that training never shows.

    `class`: the most likely class is one of the scene's; `single_class`: in scenes of one object; `color`: the same for
    named colours; `count`: the number of objects.
    """
    net.eval()
    world = SceneConfig.level(level)
    scenes = [make_scene(split, index, world) for index in range(n)]
    hits: dict[str, list[float]] = {"class": [], "single_class": [], "color": [], "count": []}
    for start in range(0, n, 128):
        part = scenes[start : start + 128]
        labels = labels_of(part)
        classes, colors, count = net(to_tensor(np.stack([render(s).image for s in part])))
        is_right = labels.classes.gather(1, classes.argmax(1, keepdim=True))[:, 0] > 0
        is_single, is_named = labels.count == 0, labels.colors.sum(1) > 0
        color_right = labels.colors.gather(1, colors.argmax(1, keepdim=True))[:, 0] > 0
        hits["class"] += is_right.tolist()
        hits["single_class"] += is_right[is_single].tolist()
        hits["color"] += color_right[is_named].tolist()
        hits["count"] += (count.argmax(1) == labels.count).tolist()
    return {name: round(float(np.mean(values)), 4) for name, values in hits.items() if values}


def train(minutes: float, size: int = 64, lr: float = 4e-3, seed: int = 5) -> tuple[FeatureNet, dict[str, Any]]:
    """A network trained for so many CPU minutes, and what was done."""
    torch.manual_seed(seed)
    net, worlds = FeatureNet().train(), [SceneConfig.level(name) for name in LEVELS]
    optimizer = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=1e-2)
    start, step, seen = time.process_time(), 0, 0
    while (share := (time.process_time() - start) / (60 * minutes)) < 1:
        rate = lr * min(1.0, (step + 1) / 50) * min(1.0, (1 - share) / 0.4)
        for group in optimizer.param_groups:
            group["lr"] = rate
        pictures, labels = batch(FIRST_SCENE + seen, size, worlds, seed)
        value = loss(net, pictures, labels)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        step, seen = step + 1, seen + size
        if step % 100 == 0:
            print(f"step {step}  share {share:.2f}  loss {value.item():.3f}", flush=True)
    done = {"cpu_minutes": minutes, "steps": step, "scenes": seen, "batch": size, "lr": lr, "seed": seed}
    return net.eval(), done


def save(net: FeatureNet, done: dict[str, Any], folder: Path, n_test: int = 1000) -> dict[str, Any]:
    """Write half-precision weights, read them again, measure what was read, and write the metadata."""
    from safetensors.torch import save as to_bytes

    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.half().contiguous() for k, v in net.state_dict().items() if v.is_floating_point()}
    data = to_bytes(state)
    (folder / WEIGHTS).write_bytes(data)
    metadata = {
        "version": VERSION,
        "sha256": hashlib.sha256(data).hexdigest(),
        "training": {**done, "date": time.strftime("%Y-%m-%d"), "cpu": platform.processor() or platform.machine()},
        "accuracy": {},
    }

    def write() -> None:
        partial = folder / (METADATA + ".partial")
        partial.write_text(json.dumps(metadata, indent=1) + "\n")
        os.replace(partial, folder / METADATA)

    write()
    shipped = load(folder)
    metadata["accuracy"] = {
        f"{split} {level}": accuracy(shipped, split, level, n_test)
        for split, level in (("test", "easy"), ("test", "full"), ("unseen_style", "easy"))
    }
    write()
    return metadata


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of the two files")
    parser.add_argument("--minutes", type=float, default=5.0, help="CPU minutes (default: 5)")
    options = parser.parse_args()
    net, done = train(options.minutes)
    print(json.dumps(save(net, done, options.output), indent=1))


if __name__ == "__main__":
    main()
