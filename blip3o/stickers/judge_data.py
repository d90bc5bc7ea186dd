"""What the sticker judge learns from: rendered scenes, worn pictures, and objects too scrambled to count.

A generator's pictures are soft, speckled and slightly bent, and its failures are blobs. So most training pictures pass
mild wear (`wear`), which a reader sees through and the judge must too, while some objects are destroyed (`scramble`)
and become background: without such examples a detector names every blob. Between the two lies a gap that no example
covers; there the calibrated score is what speaks.

A batch is a pure function of (seed, step). Shapes: B pictures, N objects, S picture side; pixels in [0, 1].
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from blip3o.stickers import CLASSES, COLORS, SceneConfig, make_scene, render

MIN_VISIBLE_PX = 16
"""Objects with fewer visible pixels are not asked for."""

DONORS = 500_000_000
"""How far the numbers of scenes whose objects are mixed into others lie from theirs."""

CLASS_INDEX = {name: i for i, name in enumerate(CLASSES)}
COLOR_INDEX = {None: -1} | {name: i for i, name in enumerate(COLORS)}


@dataclass(frozen=True)
class WearConfig:
    """How much training pictures suffer. Strengths are upper ends, in pixels of a 64 px picture or in 0..1 units."""

    untouched: float = 0.35
    each: float = 0.33
    blur_px: float = 1.3
    shrink_to: float = 0.5
    bend_px: float = 1.2
    noise: float = 0.07
    speckle: float = 0.06
    tone: float = 0.08
    compressed: float = 0.15
    scrambled: float = 0.12
    garbage: float = 0.04
    mixed: bool = True  # whether scrambling also mixes an object with one of another class


@dataclass(frozen=True)
class Batch:
    """pictures (B, 3, S, S); targets as torchvision's detectors take them; colors: per picture (N,), -1 = natural."""

    pictures: Tensor
    targets: list[dict[str, Tensor]]
    colors: list[Tensor]
    ids: tuple[int, ...]


def _smooth_noise(rng: np.random.Generator, n: int, channels: int, cells: int, size: int) -> Tensor:
    """(n, channels, size, size) noise of unit-order strength that varies over `size / cells` pixels."""
    coarse = torch.from_numpy(rng.standard_normal((n, channels, cells, cells), dtype=np.float32))
    return F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False)


def bend(x: Tensor, field: Tensor) -> Tensor:
    """Moves pixels of x (B, C, H, W) by `field` (B, 2, H, W), in pixels."""
    h, w = x.shape[-2:]
    ys, xs = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
    grid = torch.stack([(xs + field[:, 0]) * 2 / w - 1, (ys + field[:, 1]) * 2 / h - 1], -1)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def blur(x: Tensor, sigma_px: Tensor) -> Tensor:
    """Gaussian blur of each picture of x (B, C, S, S) by its own sigma (B,), as two band-matrix products."""
    at = torch.arange(x.shape[-1], dtype=x.dtype)
    kernel = torch.exp(-0.5 * ((at[:, None] - at) / sigma_px.clamp(min=0.05)[:, None, None]) ** 2)
    kernel = (kernel / kernel.sum(-1, keepdim=True))[:, None]
    return kernel @ x @ kernel.mT


def _compress(picture: Tensor, quality: int, format: str) -> Tensor:
    pixels = (picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format, quality=quality)
    with Image.open(buffer) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float() / 255


def wear(x: Tensor, rng: np.random.Generator, cfg: WearConfig) -> Tensor:
    """Blur, lost resolution, bent outlines, noise, speckle, shifted tones, compression: each on some pictures.

    x: (B, 3, S, S) in [0, 1]. Geometry moves by at most about a pixel, so boxes and masks stay right.
    """
    x = x.clone()
    b, _, size, _ = x.shape
    scale = size / 64
    worn = rng.random(b) > cfg.untouched

    def strength(upper: float) -> Tensor:
        on = worn & (rng.random(b) < cfg.each)
        return torch.from_numpy(np.where(on, rng.uniform(0, upper, b), 0.0).astype(np.float32))

    s = strength(cfg.bend_px * scale)
    if s.any():
        x = torch.where(
            s[:, None, None, None] > 0,
            bend(x, s[:, None, None, None] * _smooth_noise(rng, b, 2, 9, size)),
            x,
        )
    s = strength(1.0)
    for i in torch.nonzero(s)[:, 0].tolist():
        low = round(size * (1 - (1 - cfg.shrink_to) * float(s[i])))
        small = F.interpolate(x[i : i + 1], size=(low, low), mode="area")
        x[i] = F.interpolate(small, size=(size, size), mode="bicubic", align_corners=False)[0]
    x = blur(x, strength(cfg.blur_px * scale))
    s = strength(1.0)[:, None, None, None]
    tone = torch.from_numpy(rng.uniform(-1, 1, (3, b, 3, 1, 1)).astype(np.float32)) * cfg.tone * s
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * (1 + 2 * tone[2, :, :1])
    x = (x - 0.5) * (1 + tone[0]) + 0.5 + 0.5 * tone[1]
    s = strength(cfg.speckle)[:, None, None, None]
    x = x + s * _smooth_noise(rng, b, 3, round(size / 2.5), size)
    s = strength(cfg.noise)[:, None, None, None]
    x = (x + s * torch.from_numpy(rng.standard_normal(x.shape, dtype=np.float32))).clamp(0, 1)
    for i in np.flatnonzero(worn & (rng.random(b) < cfg.compressed)):
        x[i] = _compress(x[i], int(rng.integers(30, 85)), "JPEG" if rng.random() < 0.7 else "WEBP")
    return x


def _shuffle(rgba: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cuts a square into 4 x 4 to 6 x 6 tiles and lays them out anew, each turned."""
    n = int(rng.integers(4, 7))
    side = -(-rgba.shape[0] // n)
    pad = side * n - rgba.shape[0]
    square = np.pad(rgba, ((0, pad), (0, pad), (0, 0)))
    tiles = square.reshape(n, side, n, side, 4).swapaxes(1, 2).reshape(-1, side, side, 4)
    tiles = np.stack(
        [np.rot90(t, int(rng.integers(4))) for t in tiles[rng.permutation(len(tiles))]]
    )
    whole = tiles.reshape(n, n, side, side, 4).swapaxes(1, 2).reshape(n * side, n * side, 4)
    return whole[: rgba.shape[0], : rgba.shape[1]]


def _square(t: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(t)).permute(2, 0, 1)[None]


def _melt(rgba: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Bends a square by a third of its side."""
    side = rgba.shape[0]
    field = (
        _smooth_noise(rng, 1, 2, int(rng.integers(4, 7)), side)
        * side
        * float(rng.uniform(0.25, 0.45))
    )
    return bend(_square(rgba), field)[0].permute(1, 2, 0).numpy()


def _smear(rgba: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blurs a square until only a glow of its colours is left."""
    sigma = torch.tensor([rgba.shape[0] * float(rng.uniform(0.14, 0.25))])
    return blur(_square(rgba), sigma)[0].permute(1, 2, 0).numpy()


def _blob(rgba: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A shapeless patch in one or two of the object's colours."""
    side = rgba.shape[0]
    inside = rgba[rgba[..., 3] > 0.5]
    picks = inside[rng.integers(len(inside), size=2), :3] / inside[0, 3]
    mix = torch.sigmoid(3 * _smooth_noise(rng, 1, 1, 3, side))[0, 0].numpy()[..., None]
    at = (np.arange(side) + 0.5) / side * 2 - 1
    radius = np.hypot(*np.meshgrid(at, at)) + 0.3 * _smooth_noise(rng, 1, 1, 4, side)[0, 0].numpy()
    alpha = np.clip((0.85 - radius) * side / 4, 0, 1)[..., None].astype(np.float32)
    return np.concatenate([(mix * picks[0] + (1 - mix) * picks[1]) * alpha, alpha], -1)


def _overlay(rgba: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Two objects shown through each other and bent by a twelfth of their side: neither can be told.

    A weak generator that cannot decide between two classes draws their mean. Squares of unequal sides are first
    brought to the first one's.
    """
    side = rgba.shape[0]
    fitted = F.interpolate(_square(other), size=(side, side), mode="area")
    share = float(rng.uniform(0.42, 0.58))
    field = _smooth_noise(rng, 1, 2, 4, side) * side * float(rng.uniform(0.05, 0.11))
    mixed = share * _square(rgba) + (1 - share) * fitted
    return bend(mixed, field)[0].permute(1, 2, 0).numpy()


def cut_out(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The object under `mask` on an empty square with a quarter of its side as rim: (P, P, 4) premultiplied RGBA."""
    ys, xs = np.nonzero(mask)
    side = int(max(np.ptp(ys), np.ptp(xs))) + 1
    pad = side // 4
    canvas = np.zeros((side + 2 * pad, side + 2 * pad, 4), np.float32)
    canvas[ys - ys.min() + pad, xs - xs.min() + pad] = np.concatenate(
        [image[ys, xs], np.ones((len(ys), 1), np.float32)], -1
    )
    return canvas


def scramble(
    image: np.ndarray,
    background: np.ndarray,
    masks: np.ndarray,
    i: int,
    rng: np.random.Generator,
    other: np.ndarray | None = None,
) -> np.ndarray:
    """The picture with object `i` destroyed: shuffled, melted, smeared, replaced by a blob or mixed with another.

    Args: image, background (S, S, 3) float32 in [0, 1]; masks (N, S, S) bool. Other objects stay untouched. `other` is
    an object of another class to mix in, from `cut_out`; without one the last way is left out.
    """
    others: np.ndarray = np.logical_or.reduce(np.delete(masks, i, 0), axis=0)
    ys, xs = np.nonzero(masks[i])
    canvas = cut_out(image, masks[i])
    side = int(max(np.ptp(ys), np.ptp(xs))) + 1
    pad = side // 4
    ways = (_shuffle, _melt, _smear, _blob)
    way = int(rng.integers(4 if other is None else 5))
    if way == len(ways):
        assert other is not None
        canvas = _overlay(canvas, other, rng)
    elif ways[way] is _shuffle:
        canvas[pad : pad + side, pad : pad + side] = _shuffle(
            canvas[pad : pad + side, pad : pad + side], rng
        )
    else:
        canvas = ways[way](canvas, rng)
    gone = np.zeros_like(masks[i])  # one pixel wider: its soft rim would give the object away
    for dy, dx in ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)):
        gone |= np.roll(masks[i], (dy, dx), (0, 1))
    out = np.where((gone & ~others)[..., None], background, image)
    size = image.shape[0]
    y0, x0 = int(ys.min()) - pad, int(xs.min()) - pad
    top, left, bottom, right = (
        max(y0, 0),
        max(x0, 0),
        min(y0 + len(canvas), size),
        min(x0 + len(canvas), size),
    )
    part = canvas[top - y0 : bottom - y0, left - x0 : right - x0]
    region = out[top:bottom, left:right]
    blended = region * (1 - part[..., 3:]) + part[..., :3]
    out[top:bottom, left:right] = np.where(others[top:bottom, left:right, None], region, blended)
    return out


def _garbage(background: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A picture of nothing: the empty background, or coloured noise of some coarseness over it."""
    if rng.random() < 0.4:
        return background
    size = background.shape[0]
    noise = _smooth_noise(rng, 1, 3, int(rng.integers(3, 20)), size)[0].permute(1, 2, 0).numpy()
    return np.clip(background + float(rng.uniform(0.1, 0.5)) * noise, 0, 1)


def _donor(split: str, index: int, world: SceneConfig, classes: set[str]) -> np.ndarray | None:
    """The largest object of scene `index`, cut out, or None when it is all but hidden or of one of `classes`."""
    scene = make_scene(split, index, world)
    drawn = render(scene)
    areas = drawn.masks.sum((1, 2))
    i = int(areas.argmax())
    if areas[i] < MIN_VISIBLE_PX or scene.stickers[i].class_name in classes:
        return None
    return cut_out(drawn.image.astype(np.float32) / 255, drawn.masks[i])


def make_batch(
    split: str,
    indices: Sequence[int],
    worlds: Sequence[SceneConfig],
    cfg: WearConfig | None,
    rng: np.random.Generator,
    flip: bool = True,
) -> Batch:
    """Scenes `indices` of `split`, the worlds taken in turn, worn by `cfg` (None: as rendered)."""
    pictures, targets, colors = [], [], []
    for k, index in enumerate(indices):
        scene = make_scene(split, index, worlds[k % len(worlds)])
        drawn = render(scene)
        image, masks = drawn.image.astype(np.float32) / 255, drawn.masks
        keep = masks.sum((1, 2)) >= MIN_VISIBLE_PX
        if cfg is not None and (dice := rng.random()) < cfg.scrambled + cfg.garbage:
            background = render(replace(scene, stickers=())).image.astype(np.float32) / 255
            if dice < cfg.garbage:
                image, keep = _garbage(background, rng), np.zeros_like(keep)
            else:
                other = None
                if cfg.mixed:
                    shown = {s.class_name for s in scene.stickers}
                    other = _donor(split, index + DONORS, worlds[k % len(worlds)], shown)
                for i in np.flatnonzero(keep):
                    if rng.random() < 0.7:
                        image = scramble(image, background, masks, int(i), rng, other)
                        keep[i] = False
        boxes, masks = drawn.boxes[keep].astype(np.float32), masks[keep]
        if flip and rng.random() < 0.5:
            image, masks = image[:, ::-1], masks[:, :, ::-1]
            boxes = np.stack(
                [
                    image.shape[1] - boxes[:, 2],
                    boxes[:, 1],
                    image.shape[1] - boxes[:, 0],
                    boxes[:, 3],
                ],
                1,
            )
        pictures.append(np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32))
        stickers = [s for s, kept in zip(scene.stickers, keep, strict=True) if kept]
        targets.append(
            {
                "boxes": torch.from_numpy(np.ascontiguousarray(boxes).reshape(-1, 4)),
                "labels": torch.tensor(
                    [1 + CLASS_INDEX[s.class_name] for s in stickers], dtype=torch.int64
                ),
                "masks": torch.from_numpy(np.ascontiguousarray(masks).astype(np.uint8)),
            }
        )
        colors.append(torch.tensor([COLOR_INDEX[s.color] for s in stickers], dtype=torch.int64))
    x = torch.from_numpy(np.stack(pictures))
    return Batch(x if cfg is None else wear(x, rng, cfg), targets, colors, tuple(indices))
