"""How right the sticker judge is on scenes whose content is known: objects, counts, colours, masks.

Verdicts under GenEval's rules are measured in `evals.judges.stickers_accuracy`, which knows the rules.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from blip3o.stickers import CLASSES, COLORS, Rendered, Scene, SceneConfig, make_scene, render
from blip3o.stickers.judge import COUNTING_THRESHOLD, THRESHOLD, Found, StickerJudge
from blip3o.stickers.judge_data import MIN_VISIBLE_PX, WearConfig, make_batch, wear
from blip3o.stickers.pixel_color import ramp_distances


@dataclass(frozen=True, eq=False)
class Seen:
    """A known scene, its pixels, and what the judge found in it."""

    scene: Scene
    drawn: Rendered
    found: Sequence[Found]


def look(
    judge: StickerJudge,
    split: str,
    level: str,
    n_scenes: int,
    worn: WearConfig | None = None,
    chunk: int = 64,
) -> Iterator[Seen]:
    """The judge's answers on scenes 0..n-1 of a split, worn by `worn` if given."""
    config = SceneConfig.level(level)
    for start in range(0, n_scenes, chunk):
        scenes = [make_scene(split, i, config) for i in range(start, min(start + chunk, n_scenes))]
        drawn = [render(s) for s in scenes]
        pictures = [d.image for d in drawn]
        if worn is not None:
            x = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
            x = wear(x, np.random.default_rng((4, start)), worn)
            pictures = list((x * 255).round().byte().permute(0, 2, 3, 1).numpy())
        for scene, d, found in zip(scenes, drawn, judge.find(pictures), strict=True):
            yield Seen(scene, d, found)


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Overlap of two boxes with exclusive ends, 0..1."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def pair(seen: Seen, found: Sequence[Found]) -> list[tuple[int, int]]:
    """(found, true) index pairs of the same class with IoU of at least 0.5; best scores choose first, each once."""
    free = set(range(len(seen.scene.stickers)))
    pairs = []
    for f, one in enumerate(found):
        fits = [
            (iou(one.box, seen.drawn.boxes[t]), t)
            for t in sorted(free)
            if seen.scene.stickers[t].class_name == one.class_name
        ]
        if fits and max(fits)[0] >= 0.5:
            free.discard(max(fits)[1])
            pairs.append((f, max(fits)[1]))
    return pairs


@dataclass
class Tally:
    """Running sums of `measure`."""

    true: Counter[str]
    found: Counter[str]
    right: Counter[str]
    counts_right: int = 0
    counting_right: int = 0
    counting: int = 0
    scenes: int = 0
    tinted: int = 0
    color_right: int = 0
    pixel_right: int = 0
    pixel_right_true_mask: int = 0
    confused: Counter[tuple[str, str]] | None = None

    def add(
        self, seen: Seen, mask_ious: list[float], color_errors: Counter[tuple[str, str]]
    ) -> None:
        """One scene. Objects that are all but covered are neither asked for nor held against the judge."""
        stickers = seen.scene.stickers
        found = [f for f in seen.found if f.score > THRESHOLD]
        pairs = pair(seen, found)
        visible = seen.drawn.masks.sum((1, 2)) >= MIN_VISIBLE_PX
        hidden = {f for f, t in pairs if not visible[t]}
        self.scenes += 1
        true = Counter(s.class_name for s, v in zip(stickers, visible, strict=True) if v)
        self.true += true
        self.found += Counter(f.class_name for i, f in enumerate(found) if i not in hidden)
        self.counts_right += (
            Counter(f.class_name for i, f in enumerate(found) if i not in hidden) == true
        )
        if seen.scene.kind == "counting":
            sure = Counter(f.class_name for f in found if f.score > COUNTING_THRESHOLD)
            self.counting += 1
            self.counting_right += sure[stickers[0].class_name] == len(stickers)
        for f, t in pairs:
            if f in hidden:
                continue
            self.right[found[f].class_name] += 1
            both = (found[f].mask & seen.drawn.masks[t]).sum()
            mask_ious.append(float(both / (found[f].mask | seen.drawn.masks[t]).sum()))
            color = stickers[t].color
            if color is not None:
                self.tinted += 1
                self.color_right += found[f].color == color
                self.pixel_right += found[f].pixel_color == color
                self.pixel_right_true_mask += _pixel_color(seen, t) == color
                if found[f].color != color:
                    color_errors[color, found[f].color] += 1


def _pixel_color(seen: Seen, t: int) -> str:
    picture = torch.from_numpy(seen.drawn.image).permute(2, 0, 1)[None].float() / 255
    return COLORS[
        int(ramp_distances(picture, torch.from_numpy(seen.drawn.masks[t])[None])[0].argmin())
    ]


def measure(everything: Sequence[Seen]) -> dict[str, Any]:
    """Figures over scenes, fractions 0 to 1, higher is better.

    `f1`, `precision`, `recall`: right class and IoU of at least 0.5, scores over 0.3. `counts`: scenes in which the
    number found of every class is right (0.3). `counting`: counting scenes whose number is right at 0.9. `color`,
    `color_by_pixels`: tinted objects that were found. `mask_iou`: mean. `per_class`: F1 of each class.
    """
    tally = Tally(Counter(), Counter(), Counter())
    mask_ious: list[float] = []
    color_errors: Counter[tuple[str, str]] = Counter()
    for seen in everything:
        tally.add(seen, mask_ious, color_errors)
    right, found, true = tally.right.total(), tally.found.total(), tally.true.total()
    per_class = {c: _ratio(2 * tally.right[c], tally.found[c] + tally.true[c]) for c in CLASSES}
    return {
        "scenes": tally.scenes,
        "objects": true,
        "f1": _ratio(2 * right, found + true),
        "precision": _ratio(right, found),
        "recall": _ratio(right, true),
        "counts": _ratio(tally.counts_right, tally.scenes),
        "counting": _ratio(tally.counting_right, tally.counting),
        "color": _ratio(tally.color_right, tally.tinted),
        "color_by_pixels": _ratio(tally.pixel_right, tally.tinted),
        "color_by_pixels_true_mask": _ratio(tally.pixel_right_true_mask, tally.tinted),
        "mask_iou": round(float(np.mean(mask_ious)), 4) if mask_ious else None,
        "per_class": per_class,
        "worst_classes": dict(
            sorted(((c, v) for c, v in per_class.items() if v is not None), key=lambda p: p[1])[:5]
        ),
        "color_confusions": {f"{a} as {b}": n for (a, b), n in color_errors.most_common(5)},
    }


def false_alarms(judge: StickerJudge, n_pictures: int = 400) -> dict[str, float | None]:
    """Share of pictures of scrambled objects and coloured noise in which the judge finds anything, by threshold."""
    cfg = WearConfig(scrambled=0.7, garbage=0.3)
    config = [SceneConfig.level("full"), SceneConfig.level("easy")]
    hits, n = Counter[float](), 0
    for start in range(0, n_pictures * 4, 32):
        batch = make_batch(
            "test", range(start, start + 32), config, cfg, np.random.default_rng((5, start))
        )
        empty = [i for i, t in enumerate(batch.targets) if len(t["labels"]) == 0][: n_pictures - n]
        pictures = (batch.pictures * 255).round().byte().permute(0, 2, 3, 1).numpy()
        for found in judge.find([pictures[i] for i in empty]):
            best = max((f.score for f in found), default=0.0)
            n += 1
            hits.update(t for t in (THRESHOLD, COUNTING_THRESHOLD) if best > t)
        if n >= n_pictures:
            break
    return {
        "pictures": n,
        "found_over_0.3": _ratio(hits[THRESHOLD], n),
        "found_over_0.9": _ratio(hits[COUNTING_THRESHOLD], n),
    }


def _ratio(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None
