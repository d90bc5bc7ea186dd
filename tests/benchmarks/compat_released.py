"""What ``compat=released`` changes on nano, slip by slip: conditions, pictures, and what the sticker judge finds.

    python tests/benchmarks/compat_released.py --prompts 48

Prints one line per slip: mean and largest difference of the query states relative to their standard deviation, mean
and largest difference of the pictures of 255, and the share of prompts whose object the judge finds.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
import torch

from blip3o import generation
from blip3o.pipeline import Blip3oPipeline
from blip3o.stickers import SceneConfig, make_scene
from blip3o.stickers.captions import prompt
from blip3o.stickers.judge import StickerJudge
from blip3o.stickers.judge_files import FOLDER as JUDGE


def conditions(pipe: Blip3oPipeline, texts: list[str]) -> torch.Tensor:
    with torch.no_grad():
        return generation.encode_prompts(
            pipe.model, pipe.inputs, pipe.prompts, texts, [[] for _ in texts], None, pipe.device
        ).float()


def draw(pipe: Blip3oPipeline, texts: list[str], steps: int | None) -> np.ndarray:
    made = []
    for start in range(0, len(texts), 16):
        part = texts[start : start + 16]
        seeds = [torch.Generator().manual_seed(900 + start + i) for i in range(len(part))]
        made += pipe(part, generator=seeds, num_inference_steps=steps).images
    return np.stack([np.asarray(image) for image in made])


def variant(
    compat: str = "default", is_closed: bool | None = None, dtype: torch.dtype | None = None
) -> Blip3oPipeline:
    pipe = Blip3oPipeline.from_pretrained("nano", compat=compat, dtype=dtype)
    if is_closed is not None:
        pipe.prompts = replace(pipe.prompts, is_closed=is_closed)
    return pipe


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--prompts", type=int, default=48)
    parser.add_argument("--only", default="", help="cases whose name holds this text")
    options = parser.parse_args()
    world, scenes, index = SceneConfig.level("easy"), [], 0
    while len(scenes) < options.prompts:
        scene = make_scene("val", index, world)
        index += 1
        if scene.kind in ("single_object", "colors"):
            scenes.append(scene)
    texts = [prompt(scene) for scene in scenes]
    judge = StickerJudge.load(JUDGE)

    def share(pictures: np.ndarray) -> float:
        from PIL import Image

        found = judge.find([Image.fromarray(p) for p in pictures])
        return float(np.mean([
            any(f.class_name == scene.stickers[0].class_name and f.score > 0.3 for f in row)
            for scene, row in zip(scenes, found, strict=True)
        ]))  # fmt: skip

    cases = [
        ("closed assistant turn (against open)", variant(), variant(is_closed=True), None),
        # nano's own 20 steps fall on whole timesteps, where truncation does nothing
        ("truncated timesteps, 30 steps", variant(), variant("released"), 30),
        ("bfloat16, released rounding (against bfloat16)",
         variant(dtype=torch.bfloat16), variant("released", dtype=torch.bfloat16), None),
    ]  # fmt: skip
    for name, plain, other, steps in cases:
        if options.only and options.only not in name:
            continue
        first, second = conditions(plain, texts), conditions(other, texts)
        gap = (first - second).abs() / first.std()
        one, two = draw(plain, texts, steps), draw(other, texts, steps)
        pixels = np.abs(one.astype(int) - two.astype(int))
        print(
            f"{name}: condition mean {gap.mean():.4f} max {gap.max():.3f} sd; pictures mean {pixels.mean():.2f} "
            f"max {pixels.max()} of 255, {np.mean([p.max() > 3 for p in pixels]):.2f} of them by more than 3; found "
            f"{share(one):.3f} -> {share(two):.3f} (n {len(texts)})",
            flush=True,
        )


if __name__ == "__main__":
    main()
